/* dtype.h - dtypes and devices in words. */
#ifndef SAC_BASE_DTYPE_H
#define SAC_BASE_DTYPE_H

#include <saccade/tensor.h>

/* "bf16", "fp32", "int32", ... or "an unknown dtype". */
const char *sac_dtype_text(DLDataType dtype);

/* "cpu", "cuda", ... as PyTorch spells them, or "unknown". The id is not part of it. */
const char *sac_device_text(DLDevice device);

#endif
