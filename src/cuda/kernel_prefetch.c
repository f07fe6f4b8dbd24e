/* kernel_prefetch.c - one thread a kernel; every kernel is looked at once in a context's life. */
#include "cuda/kernel_prefetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mod/modifier.h"

struct sac_prefetch {
    sac_kernel_id id;
    int32_t device_id;
    pid_t process; /* whose thread it is: a forked child has none; 0: there was nothing to do */
    pthread_t thread;
    sac_kernel_spec spec; /* with a copy of the modifiers' text */
    char *modifiers;
    char architecture[SAC_ARCHITECTURE_SIZE];
    void *cubin; /* NULL: it did not compile, or was taken */
    size_t size;
    sac_prefetch *next;
};

static void *compile(void *data) {
    sac_prefetch *p = data;
    if (sac_kernel_compile(&p->spec, p->architecture, &p->cubin, &p->size, NULL) != SACCADE_OK)
        p->cubin = NULL;
    return NULL;
}

static void wait_for(sac_prefetch *p) {
    if (p->process == getpid())
        pthread_join(p->thread, NULL);
    else
        p->cubin = NULL; /* whatever the other process made of it */
    p->process = 0;
}

static sac_prefetch *find(sac_prefetch *list, int32_t device_id, sac_kernel_id id) {
    while (list && (list->device_id != device_id || list->id.low != id.low || list->id.high != id.high))
        list = list->next;
    return list;
}

bool sac_prefetch_noted(sac_prefetch *list, int32_t device_id, sac_kernel_id id) {
    return find(list, device_id, id) != NULL;
}

static void start(sac_prefetch *p, const sac_kernel_spec *spec) {
    p->spec = *spec;
    if (spec->modifiers && !(p->modifiers = strdup(spec->modifiers))) return;
    p->spec.modifiers = p->modifiers;
    if (pthread_create(&p->thread, NULL, compile, p) == 0) p->process = getpid();
}

void sac_prefetch_note(sac_prefetch **list, const sac_cuda_device *device, const sac_kernel_spec *spec,
                       sac_kernel_id id, bool wanted) {
    sac_prefetch *p = calloc(1, sizeof *p);
    if (!p) return;
    p->id = id;
    p->device_id = device->id;
    sac_kernel_architecture(p->architecture, device, spec);
    if (wanted) start(p, spec);
    p->next = *list;
    *list = p;
}

bool sac_backward_may_follow(const sac_attention_call *call) {
    return call->args.lse.data && (!call->score_mod || sac_modifier_has_grad(call->score_mod));
}

void *sac_prefetch_take(sac_prefetch *list, int32_t device_id, sac_kernel_id id, size_t *size) {
    sac_prefetch *p = find(list, device_id, id);
    if (!p || !p->process) return NULL;
    wait_for(p);
    void *cubin = p->cubin;
    *size = p->size;
    p->cubin = NULL;
    return cubin;
}

void sac_prefetches_free(sac_prefetch *prefetches) {
    for (sac_prefetch *p = prefetches, *next; p; p = next) {
        next = p->next;
        if (p->process) wait_for(p);
        free(p->cubin);
        free(p->modifiers);
        free(p);
    }
}
