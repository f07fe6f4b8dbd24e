/* isa.h - names of what is compiled once per instruction set: SAC_FOR_ISA(sac_gemm) is sac_gemm_avx2. */
#ifndef SAC_CPU_KERNELS_ISA_H
#define SAC_CPU_KERNELS_ISA_H

#define SAC_PASTE_(name, isa) name##_##isa
#define SAC_PASTE(name, isa) SAC_PASTE_(name, isa)
#define SAC_FOR_ISA(name) SAC_PASTE(name, SAC_ISA)

#endif
