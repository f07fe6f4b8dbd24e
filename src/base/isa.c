/* isa.c - what the processor offers. */
#include "base/isa.h"

#include <stdatomic.h>
#include <string.h>

#include "base/error.h"

#if defined(__x86_64__)
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* AMX state is off until the process asks Linux for it; a refusal means that the machine may not be used so. */
static bool amx_permitted(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* CPUID 7.0 EDX: bit 22 AMX-BF16, bit 24 AMX-TILE. */
static bool amx_present(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    return (edx >> 22 & 1) && (edx >> 24 & 1);
}

/* Not every compiler knows "f16c" as a feature to ask for. */
static bool f16c_present(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static bool ask_processor(sac_isa isa) {
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c_present();
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bf16");
    switch (isa) {
    case SAC_ISA_GENERIC:
        return true;
    case SAC_ISA_AVX2:
        return SAC_HAVE_ISA_AVX2 && avx2;
    case SAC_ISA_AVX512:
        return SAC_HAVE_ISA_AVX512 && avx512;
    case SAC_ISA_AMX:
        return SAC_HAVE_ISA_AMX && avx512 && amx_present() && amx_permitted();
    default:
        return false;
    }
}
#else
static bool ask_processor(sac_isa isa) { return isa == SAC_ISA_GENERIC; }
#endif

/* Asked once: on a virtual machine CPUID traps to its host, which takes ten times as long as a small attention. */
bool sac_isa_usable(sac_isa isa) {
    enum { UNKNOWN, UNUSABLE, USABLE };
    static atomic_int known[SAC_NUM_ISAS];
    int answer = atomic_load_explicit(&known[isa], memory_order_relaxed);
    if (answer == UNKNOWN) {
        answer = ask_processor(isa) ? USABLE : UNUSABLE;
        atomic_store_explicit(&known[isa], answer, memory_order_relaxed);
    }
    return answer == USABLE;
}

const char *sac_isa_name(sac_isa isa) {
    static const char *const names[SAC_NUM_ISAS] = {"generic", "avx2", "avx512", "amx"};
    return names[isa];
}

saccade_status sac_isa_check(const char *name) {
    if (!name || !*name) return SACCADE_OK;
    for (int i = 0; i < SAC_NUM_ISAS; i++) {
        if (strcmp(name, sac_isa_name((sac_isa)i)) != 0) continue;
        if (sac_isa_usable((sac_isa)i)) return SACCADE_OK;
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "isa: this machine, or this build, lacks \"%s\"; the best is \"%s\"", name,
                        sac_isa_name(sac_isa_choose(NULL)));
    }
    return sac_fail(SACCADE_INVALID_ARGUMENT, "isa: \"%s\" is none of generic, avx2, avx512, amx", name);
}

sac_isa sac_isa_choose(const char *name) {
    const bool named = name && *name;
    for (int i = SAC_NUM_ISAS - 1; i > 0; i--)
        if (named ? strcmp(name, sac_isa_name((sac_isa)i)) == 0 : sac_isa_usable((sac_isa)i))
            return (sac_isa)i;
    return SAC_ISA_GENERIC;
}
