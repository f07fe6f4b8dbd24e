/* dtype.h - dtypes in words. */
#ifndef SAC_BASE_DTYPE_H
#define SAC_BASE_DTYPE_H

#include <saccade/tensor.h>

/* "bf16", "f32", ... or "an unknown dtype". */
const char *sac_dtype_text(DLDataType dtype);

#endif
