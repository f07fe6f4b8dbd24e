/* kernels.c - the instruction sets that this library was built with. */
#include "cpu/kernels.h"

#define SAC_KERNELS_OF(isa) sac_cpu_kernels_##isa
extern const sac_cpu_kernels SAC_KERNELS_OF(generic);
#if SAC_HAVE_ISA_AVX2
extern const sac_cpu_kernels SAC_KERNELS_OF(avx2);
#endif
#if SAC_HAVE_ISA_AVX512
extern const sac_cpu_kernels SAC_KERNELS_OF(avx512);
#endif
#if SAC_HAVE_ISA_AMX
extern const sac_cpu_kernels SAC_KERNELS_OF(amx);
#endif

const sac_cpu_kernels *sac_cpu_kernels_of(sac_isa isa) {
    static const sac_cpu_kernels *const compiled[SAC_NUM_ISAS] = {
        [SAC_ISA_GENERIC] = &SAC_KERNELS_OF(generic),
#if SAC_HAVE_ISA_AVX2
        [SAC_ISA_AVX2] = &SAC_KERNELS_OF(avx2),
#endif
#if SAC_HAVE_ISA_AVX512
        [SAC_ISA_AVX512] = &SAC_KERNELS_OF(avx512),
#endif
#if SAC_HAVE_ISA_AMX
        [SAC_ISA_AMX] = &SAC_KERNELS_OF(amx),
#endif
    };
    return compiled[isa];
}
