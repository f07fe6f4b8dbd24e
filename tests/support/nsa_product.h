/* nsa_product.h - options of native sparse attention, combined such that every pair of them meets. */
#ifndef TEST_NSA_PRODUCT_H
#define TEST_NSA_PRODUCT_H

#include "support/nsa_problem.h"

enum { NSA_PRODUCT_SIZE = 144 };

/* Case i; its name goes to `name`. */
nsa_case nsa_product(int i, char *name, size_t size);

#endif
