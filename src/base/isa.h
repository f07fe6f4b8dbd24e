/* isa.h - the instruction sets that the CPU backend may be compiled for, weakest first, and which are usable here. */
#ifndef SAC_BASE_ISA_H
#define SAC_BASE_ISA_H

#include <saccade/status.h>
#include <stdbool.h>

typedef enum sac_isa { SAC_ISA_GENERIC, SAC_ISA_AVX2, SAC_ISA_AVX512, SAC_ISA_AMX, SAC_NUM_ISAS } sac_isa;

const char *sac_isa_name(sac_isa isa);

/* Does this library, and this machine as the operating system lets us use it, have it? */
bool sac_isa_usable(sac_isa isa);

/* OK for NULL and for the name of a usable set, else INVALID_ARGUMENT. */
saccade_status sac_isa_check(const char *name);

/* The set of that name, or, for NULL or "", the strongest usable one. */
sac_isa sac_isa_choose(const char *name);

#endif
