/* kernel_prefetch.c - one thread a kernel; every kernel is looked at once in a context's life. A process that ends
 * waits for its threads first: NVRTC would otherwise be taken down under them. */
#include "cuda/kernel_prefetch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/nvrtc.h"
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
    sac_prefetch *next_under_way;
};

/* Whose threads nobody has joined, of all contexts; a forked child finds its parent's there too. */
static pthread_mutex_t under_way_lock = PTHREAD_MUTEX_INITIALIZER;
static sac_prefetch *under_way;

static void add_under_way(sac_prefetch *p) {
    pthread_mutex_lock(&under_way_lock);
    p->next_under_way = under_way;
    under_way = p;
    pthread_mutex_unlock(&under_way_lock);
}

/* Takes p out of the list, or, where that is NULL, any of this process: what is then the caller's to join. */
static sac_prefetch *remove_under_way(const sac_prefetch *p) {
    pthread_mutex_lock(&under_way_lock);
    sac_prefetch **at = &under_way;
    while (*at && (p ? *at != p : (*at)->process != getpid())) at = &(*at)->next_under_way;
    sac_prefetch *found = *at;
    if (found) *at = found->next_under_way;
    pthread_mutex_unlock(&under_way_lock);
    return found;
}

static void join_all(void) {
    for (sac_prefetch *p; (p = remove_under_way(NULL));) pthread_join(p->thread, NULL);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool joined_at_exit;
static void join_at_exit(void) { joined_at_exit = atexit(join_all) == 0; }

static void *compile(void *data) {
    sac_prefetch *p = data;
    if (sac_kernel_compile(&p->spec, p->architecture, &p->cubin, &p->size, NULL) != SACCADE_OK)
        p->cubin = NULL;
    return NULL;
}

static void wait_for(sac_prefetch *p) {
    const bool found = remove_under_way(p); /* by one alone: the process may be ending */
    if (p->process != getpid())
        p->cubin = NULL; /* whatever the other process made of it */
    else if (found)
        pthread_join(p->thread, NULL);
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

/* NVRTC is opened before: what is registered for the exit runs in reverse, and its own destructors must come after. */
static void start(sac_prefetch *p, const sac_kernel_spec *spec) {
    if (!sac_nvrtc_get(NULL)) return;
    pthread_once(&once, join_at_exit);
    if (!joined_at_exit) return;
    p->spec = *spec;
    if (spec->modifiers && !(p->modifiers = strdup(spec->modifiers))) return;
    p->spec.modifiers = p->modifiers;
    if (pthread_create(&p->thread, NULL, compile, p) != 0) return;
    p->process = getpid();
    add_under_way(p);
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
