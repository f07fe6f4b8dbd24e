/* kernel_compile.h - compiling a kernel's variant by NVRTC, which needs no GPU for it. */
#ifndef TEST_KERNEL_COMPILE_H
#define TEST_KERNEL_COMPILE_H

#include "cuda/cuda.h"

/* Compiles for Hopper; the test fails where the kernel would be slow for a reason that the compiler knows: registers that
 * spill, matrix products that are serialised. Skips the test where there is no NVRTC. */
void assert_compiles_clean(const sac_kernel_spec *spec, const char *what);

#endif
