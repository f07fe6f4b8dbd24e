/* test_cpu_isa.c - the product of features on the instruction sets that the CPU backend would not choose here. The
 * best one is what every other test runs on. */
#include <stdlib.h>

#include "base/isa.h"
#include "support/attention_product.h"
#include "support/attention_suite.h"

enum { THIN = 3 };

static const sac_dtype dtypes[] = {SAC_F32, SAC_BF16, SAC_F16};

static void weaker_sets_compute_the_same(void **state) {
    (void)state;
    size_t count;
    attention_case *cases = attention_product(0, THIN, &count);
    for (int isa = 0; isa < (int)sac_isa_choose(NULL); isa++) {
        if (!sac_isa_usable((sac_isa)isa)) continue;
        const run_options options = {.isa = sac_isa_name((sac_isa)isa)};
        for (size_t i = 0; i < count; i++) {
            print_message("%s: %s\n", options.isa, cases[i].name);
            attention_verify(&cases[i], dtypes[(i + (size_t)isa) % COUNT_OF(dtypes)], "cpu", &options);
        }
    }
    attention_product_free(cases, count);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(weaker_sets_compute_the_same)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
