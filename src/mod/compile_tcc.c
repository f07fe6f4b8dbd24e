/* compile_tcc.c - libtcc: a text becomes code in memory within a millisecond or two, without any file. */
#include <stdlib.h>
#include <string.h>

#include "mod/compile.h"
#include "mod/text.h"

#ifdef SAC_HAVE_LIBTCC

#include <libtcc.h>
#include <math.h>
#include <pthread.h>
#include <saccade/modifier_text.h>

#include "shared/math.h"

/* libtcc keeps the compilation under way in static variables: one at a time, and none while the process forks, so
 * that a child finds it idle. */
static pthread_mutex_t tcc_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t tcc_once = PTHREAD_ONCE_INIT;

static void lock_tcc(void) { pthread_mutex_lock(&tcc_lock); }
static void unlock_tcc(void) { pthread_mutex_unlock(&tcc_lock); }
static void guard_forks(void) { pthread_atfork(lock_tcc, unlock_tcc, unlock_tcc); }

/* What libtcc's code calls for conversions that its compiler does not do in line (else from its libtcc1.a). */
static float float_from_u64(uint64_t x) { return (float)x; }
static double double_from_u64(uint64_t x) { return (double)x; }
static uint64_t u64_from_float(float x) { return (uint64_t)x; }
static uint64_t u64_from_double(double x) { return (uint64_t)x; }
static void add_atomically(float *at, float x) { saccade_atomic_add(at, x); }

typedef void (*any_function)(void);
#define tanhf sac_tanhf /* faster than the C library's; the others are not */
#define SYMBOL(name, parameters) {#name, (any_function)name},
static const struct {
    const char *name;
    any_function function;
} symbols[] = {{"__floatundisf", (any_function)float_from_u64},
               {"__floatundidf", (any_function)double_from_u64},
               {"__fixunssfdi", (any_function)u64_from_float},
               {"__fixunsdfdi", (any_function)u64_from_double},
               {"memset", (any_function)memset},
               {"memcpy", (any_function)memcpy},
               {"memmove", (any_function)memmove},
               {"saccade_atomic_add", (any_function)add_atomically},
               SAC_TEXT_FUNCTIONS(SYMBOL)};

/* Objects and functions differ for ISO C alone: POSIX, and libtcc, have them in one address space. */
static void *address_of(any_function function) {
    void *address;
    memcpy(&address, &function, sizeof address);
    return address;
}

/* Appends one message to the log. */
static void keep_message(void *opaque, const char *message) {
    char **log = opaque, *longer;
    size_t before = *log ? strlen(*log) : 0;
    if (!(longer = realloc(*log, before + strlen(message) + 2))) return;
    *log = longer;
    strcpy(longer + before, message);
    strcat(longer + before, "\n");
}

static void release_tcc(void *owner) {
    lock_tcc();
    tcc_delete(owner);
    unlock_tcc();
}

/* ---- one compilation ---- */

typedef struct tcc_job {
    const char *source;
    char *log;
    TCCState *tcc; /* NULL: the source is at fault */
} tcc_job;

static void *compile_source(void *argument) {
    tcc_job *job = argument;
    TCCState *tcc = tcc_new();
    if (!tcc) return NULL;
    tcc_set_error_func(tcc, &job->log, keep_message);
    tcc_set_options(tcc, "-nostdlib -nostdinc -Wimplicit-function-declaration -Werror");
    bool good = tcc_set_output_type(tcc, TCC_OUTPUT_MEMORY) == 0;
    for (size_t i = 0; good && i < sizeof symbols / sizeof *symbols; i++)
        good = tcc_add_symbol(tcc, symbols[i].name, address_of(symbols[i].function)) == 0;
    if (good && tcc_compile_string(tcc, job->source) == 0 && tcc_relocate(tcc, TCC_RELOCATE_AUTO) == 0)
        job->tcc = tcc;
    else
        tcc_delete(tcc);
    return NULL;
}

/* libtcc parses by recursion, a level for each of "((((" or "!!!!". What would overflow the caller's stack gets one of
 * its own, enough for the deepest nesting that MAX_SOURCE bytes can hold. */
enum { MAX_SOURCE = 128 << 10, STACK_PER_BYTE = 1024 };

static bool run_with_deep_stack(tcc_job *job) {
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0) return false;
    bool good = pthread_attr_setstacksize(&attributes, (size_t)MAX_SOURCE * STACK_PER_BYTE) == 0 &&
                pthread_create(&thread, &attributes, compile_source, job) == 0;
    pthread_attr_destroy(&attributes);
    if (good) pthread_join(thread, NULL);
    return good;
}

sac_compile_result sac_compile_tcc(sac_mod_state *state, const char *source, sac_mod_code *code, char **log) {
    tcc_job job = {.source = source};
    *log = NULL;
    if (strlen(source) > MAX_SOURCE) {
        *log = strdup("libtcc is not given texts this long; they need a C compiler");
        return SAC_COMPILE_UNUSABLE;
    }
    pthread_once(&tcc_once, guard_forks);
    lock_tcc();
    bool ran = run_with_deep_stack(&job);
    unlock_tcc();
    state->num_compiled++;
    *log = ran ? job.log : strdup("no thread for libtcc could be started");
    if (!job.tcc) return ran ? SAC_COMPILE_REFUSED : SAC_COMPILE_UNUSABLE;
    code->owner = job.tcc;
    code->release = release_tcc;
    *(void **)&code->score_row = tcc_get_symbol(job.tcc, SAC_SCORE_ROW_SYMBOL);
    *(void **)&code->score_grad_row = tcc_get_symbol(job.tcc, SAC_SCORE_GRAD_ROW_SYMBOL);
    *(void **)&code->mask_row = tcc_get_symbol(job.tcc, SAC_MASK_ROW_SYMBOL);
    return SAC_COMPILED;
}

#else

sac_compile_result sac_compile_tcc(sac_mod_state *state, const char *source, sac_mod_code *code, char **log) {
    (void)state, (void)source, (void)code;
    *log = strdup("no C compiler was found or asked for, and this build of saccade has no libtcc");
    return SAC_COMPILE_UNUSABLE;
}

#endif
