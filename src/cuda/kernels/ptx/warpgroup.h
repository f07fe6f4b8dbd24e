/* ptx/warpgroup.h - registers: moved between warpgroups, sm_90a, and shared by the lanes of a warp. */
#ifndef SAC_PTX_WARPGROUP_H
#define SAC_PTX_WARPGROUP_H

#include "shared/types.h"

/* Executed by every warp of the warpgroup; the count is its new number of registers a thread. */
#define ptx_give_registers(count) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count))
#define ptx_take_registers(count) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count))

/* A value that all lanes agree on, said in a way that keeps it, and what is computed from it, in a uniform register. */
SAC_FN uint32_t ptx_warp_uniform(uint32_t value) { return __reduce_max_sync(~0u, value); }

#endif
