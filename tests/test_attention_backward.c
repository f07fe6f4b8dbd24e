/* test_attention_backward.c - forward and backward, over the product of features. */
#include "support/attention_product.h"
#include "support/attention_suite.h"

int main(void) {
    size_t count;
    attention_case *cases = attention_product(0, 1, &count);
    int failed = attention_suite("attention_backward", cases, count, NULL, 0, false);
    attention_product_free(cases, count);
    return failed;
}
