/* sample.h - q, k, v of a trained model, from tests/data. */
#ifndef TEST_SAMPLE_H
#define TEST_SAMPLE_H

#include "support/problem.h"

/* Fills q, k, v with the first rows, heads by heads; head_dim 64, at most 8 query and 2 key heads. */
void sample_fill(problem *p);

/* The first rows and heads of "q", "k" or "v" as (rows, heads, 64), rounded to the dtype. */
void sample_rows(const char *name, double *to, int64_t rows, int32_t heads, sac_dtype dtype);

#endif
