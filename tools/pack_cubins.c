/* pack_cubins.c - the build's step that compiles the standard kernels into the pack beside the library.
 *
 *     pack_cubins PACK CACHE_DIR PROCESSES 80 90 ...      (compute capabilities)
 *
 * Processes share the work: each walks the whole list and compiles its part into CACHE_DIR; then the first walks it
 * once more and writes the pack from what lies there. So a build after a change of host code compiles nothing. Needs
 * no GPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/runtime.h"
#include "cuda/standard_kernels.h"

/* The kernels of all architectures, each once. */
static sac_packed_cubin *cubins;
static size_t count;

static saccade_context *ctx;
static size_t part, num_parts; /* of this process; num_parts 0: everything is kept */

/* The places in the list at which a key was seen first are the same in every process: so it is known whose kernel it
 * is. */
static bool seen(const char *key) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(cubins[i].key, key) == 0) return true;
    return false;
}

/* In the place of a launch. */
static saccade_status visit(saccade_context *none, const sac_cuda_device *device, const sac_kernel_spec *spec,
                            int64_t num_ctas, void **params) {
    (void)none, (void)num_ctas, (void)params;
    enum { ROOM = 64 };
    sac_packed_cubin packed = {.size = 0};
    if (!sac_kernel_pack_key(packed.key, device, spec)) return SACCADE_OUT_OF_MEMORY;
    if (seen(packed.key)) return SACCADE_OK;
    if (count % ROOM == 0) {
        sac_packed_cubin *more = realloc(cubins, (count + ROOM) * sizeof *more);
        if (!more) return SACCADE_OUT_OF_MEMORY;
        cubins = more;
    }
    saccade_status status = SACCADE_OK;
    if (num_parts == 0 || count % num_parts == part) {
        void *cubin = NULL;
        status = sac_kernel_cubin(ctx, device, spec, &cubin, &packed.size);
        packed.cubin = cubin;
    }
    cubins[count++] = packed;
    return status;
}

static int visit_all(char **capabilities) {
    for (; *capabilities; capabilities++)
        if (sac_standard_kernels(atoi(*capabilities), visit) != SACCADE_OK) {
            fprintf(stderr, "pack_cubins: sm_%s: %s\n", *capabilities, saccade_last_error());
            return EXIT_FAILURE;
        }
    return EXIT_SUCCESS;
}

static int compile_in_processes(size_t processes, char **capabilities) {
    int failed = 0;
    num_parts = processes;
    for (part = 0; part < num_parts; part++) {
        pid_t child = fork();
        if (child == 0) _exit(visit_all(capabilities));
        failed |= child < 0;
    }
    for (int status; wait(&status) > 0;) failed |= status;
    num_parts = 0;
    return failed;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: pack_cubins PACK CACHE_DIR PROCESSES CAPABILITY...\n");
        return EXIT_FAILURE;
    }
    int processes = atoi(argv[3]);
    if (processes < 1 ||
        saccade_context_create(&ctx, &(saccade_context_params){.cache_dir = argv[2]}) != SACCADE_OK ||
        !sac_cuda_of(ctx))
        return EXIT_FAILURE;
    if (compile_in_processes((size_t)processes, argv + 4) != 0 || visit_all(argv + 4) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    if (sac_cubin_pack_write(argv[1], cubins, count) != SACCADE_OK) {
        fprintf(stderr, "pack_cubins: %s\n", saccade_last_error());
        return EXIT_FAILURE;
    }
    printf("%zu kernels in %s\n", count, argv[1]);
    return EXIT_SUCCESS;
}
