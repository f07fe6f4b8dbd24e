/* ptx/prefetch.h - asks for what will be read soon, which takes no register. */
#ifndef SAC_PTX_PREFETCH_H
#define SAC_PTX_PREFETCH_H

#include "shared/types.h"

/* The sector of 32 bytes around p, to the L2. */
SAC_FN void ptx_prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

#endif
