/* plain_formula.h - attention as one writes it first, in the dtype of its inputs: the measure of a fair error.
 *
 * Scores, probabilities and their gradients are tensors of the input's dtype, so each is rounded where a
 * straightforward program would store it; sums are fp32. lse alone comes from scores that were not rounded.
 */
#ifndef PLAIN_FORMULA_H
#define PLAIN_FORMULA_H

#include "workload.h"

/* Fills results made by results_new, after the library has accepted the workload. Returns the exit code, after a
 * message unless EXIT_OK. */
int plain_formula(const workload *work, results *r);

#endif
