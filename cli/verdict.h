/* verdict.h - how far a result lies from the exact one, and how far it may.
 *
 * The bound of a tensor is twice the largest error of the plain formula in the input's dtype, plus 1e-5 of the largest
 * exact value (of 1, for an lse below it: a logarithm's error is a probability's relative error).
 */
#ifndef VERDICT_H
#define VERDICT_H

#include <saccade/tensor.h>
#include <stdbool.h>
#include <stddef.h>

/* Errors are the largest of the tensor; infinite where only one side is an infinity or NaN. */
typedef struct verdict {
    const char *name;
    const DLTensor *tensor;
    double largest, error, plain_error, bound;
    size_t worst; /* the element with the largest error */
    double found, exact;
    bool good;
} verdict;

/* All three of the same shape; `name` is kept. */
verdict judge_result(const char *name, const DLTensor *found, const DLTensor *plain, const DLTensor *exact);

#endif
