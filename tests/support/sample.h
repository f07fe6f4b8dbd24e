/* sample.h - q, k, v of a trained model, from tests/data. */
#ifndef TEST_SAMPLE_H
#define TEST_SAMPLE_H

#include "support/problem.h"

/* Fills q, k, v with the first rows, heads by heads; head_dim 64, at most 8 query and 2 key heads. */
void sample_fill(problem *p);

#endif
