/* verdict.c - how far a result lies from the exact one. */
#include "verdict.h"

#include <math.h>
#include <string.h>

#include "dtype.h"

static double error_of(double found, double exact) {
    if (isnan(exact)) return isnan(found) ? 0 : INFINITY;
    if (isinf(exact)) return found == exact ? 0 : INFINITY;
    return isfinite(found) ? fabs(found - exact) : INFINITY;
}

verdict judge_result(const char *name, const DLTensor *found, const DLTensor *plain, const DLTensor *exact) {
    verdict v = {.name = name, .tensor = found};
    size_t count = tensor_elements(found);
    for (size_t i = 0; i < count; i++) {
        double wanted = dtype_value(exact->dtype, exact->data, i);
        double here = dtype_value(found->dtype, found->data, i), error = error_of(here, wanted);
        double plain_error = error_of(dtype_value(plain->dtype, plain->data, i), wanted);
        if (isfinite(wanted)) v.largest = fmax(v.largest, fabs(wanted));
        if (isfinite(plain_error)) v.plain_error = fmax(v.plain_error, plain_error);
        if (i && error <= v.error) continue;
        v.worst = i;
        v.error = error;
        v.found = here;
        v.exact = wanted;
    }
    double unit = strcmp(name, "lse") ? v.largest : fmax(v.largest, 1);
    v.bound = 2 * v.plain_error + 1e-5 * unit;
    v.good = v.error <= v.bound;
    return v;
}
