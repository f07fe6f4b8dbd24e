/* attention_product.h - the product of features, thinned so that every pair of them meets. */
#ifndef TEST_ATTENTION_PRODUCT_H
#define TEST_ATTENTION_PRODUCT_H

#include "support/attention_case.h"

/* Every step-th case of the product, from `first`. Freed by the caller, with attention_product_free. */
attention_case *attention_product(size_t first, size_t step, size_t *count);
void attention_product_free(attention_case *cases, size_t count);

#endif
