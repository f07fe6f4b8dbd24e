/* compile.h - a text becomes functions of this process. compile.c decides by which compiler. */
#ifndef SAC_MOD_COMPILE_H
#define SAC_MOD_COMPILE_H

#include "base/context.h"
#include "mod/modifier.h"

/* A context's own: what it found and what it did. */
typedef struct sac_mod_state {
    bool chosen;          /* the compiler was looked for */
    char *compiler;       /* path of the C compiler; NULL: libtcc */
    int64_t num_compiled; /* texts, by either compiler, whether or not that succeeded */
    int64_t num_cached;   /* texts that came from the disk cache */
} sac_mod_state;

/* Made on first use. NULL: no memory. */
sac_mod_state *sac_mod_state_of(saccade_context *ctx);

typedef enum sac_compile_result {
    SAC_COMPILED,
    SAC_COMPILE_REFUSED,  /* the text is at fault; the log says why */
    SAC_COMPILE_UNUSABLE, /* the compiler is; the log says how that showed */
} sac_compile_result;

/* Each fills functions, owner and release of *code, or gives a log, to be freed, of what the compiler said (NULL: no
 * memory for one). */
sac_compile_result sac_compile_cc(saccade_context *ctx, sac_mod_state *state, const char *source,
                                  sac_mod_code *code, char **log);
sac_compile_result sac_compile_tcc(sac_mod_state *state, const char *source, sac_mod_code *code, char **log);

#endif
