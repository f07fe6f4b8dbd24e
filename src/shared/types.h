/* types.h - the few words that host and device code need to mean the same thing by. */
#ifndef SAC_TYPES_H
#define SAC_TYPES_H

/* NVRTC, and the run-time compilers of modifier texts, have no headers to include. */
#if defined(__CUDACC_RTC__) || defined(SACCADE_RUN_TIME)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#if defined(__CUDACC_RTC__)
#define SAC_FN static __device__ __forceinline__
#else
#define SAC_FN static inline
#endif

typedef enum sac_dtype {
    SAC_F32 = 0,
    SAC_F16 = 1,
    SAC_BF16 = 2,
    SAC_F64 = 3, /* reference only */
} sac_dtype;

SAC_FN int32_t sac_min(int32_t a, int32_t b) { return a < b ? a : b; }
SAC_FN int32_t sac_max(int32_t a, int32_t b) { return a > b ? a : b; }
SAC_FN int32_t sac_ceil_div(int32_t a, int32_t b) { return a / b + (a % b > 0); }

#endif
