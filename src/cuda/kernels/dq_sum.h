/* dq_sum.h - where the sums of dQ lie while key tiles add to them.
 *
 * A row holds its columns in the order in which the four lanes of a quad own them: of every 16 columns, lane t has
 * 2t, 2t + 1, 8 + 2t and 9 + 2t, and finds them side by side. So each lane adds 16 bytes at a time.
 */
#ifndef SAC_KERNELS_DQ_SUM_H
#define SAC_KERNELS_DQ_SUM_H

#include "shared/types.h"

/* Elements a row: whole groups of 16 columns. */
#define DQ_SUM_PITCH ((HEAD_DIM + 15) / 16 * 16)

/* Where column c, an even one, and its neighbour lie. */
SAC_FN int dq_sum_place(int c) { return c / 16 * 16 + c % 8 / 2 * 4 + c / 8 % 2 * 2; }

#endif
