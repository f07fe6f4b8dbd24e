/* mask_lists.h - block lists made on a device: the memory they take, and the kernels that fill it, in the order of
 * kernels/mask_args.h. What is listed is known to the device alone. */
#ifndef SAC_CUDA_MASK_LISTS_H
#define SAC_CUDA_MASK_LISTS_H

#include "cuda/cuda.h"
#include "cuda/kernels/mask_args.h"

typedef enum sac_mask_kernel {
    SAC_MASK_VALUES,
    SAC_MASK_CLASSIFY, /* needs a mask_mod as its modifiers */
    SAC_MASK_COUNT,
    SAC_MASK_OFFSETS,
    SAC_MASK_WRITE,
    SAC_MASK_COLUMNS,
    SAC_MASK_TRANSPOSE,
    SAC_MASK_IMPORT, /* these two take sac_exchange_args */
    SAC_MASK_EXPORT,
    SAC_NUM_MASK_KERNELS
} sac_mask_kernel;

enum { SAC_MASK_THREADS = 256 }; /* of all but SAC_MASK_OFFSETS */

extern const sac_kernel_spec sac_mask_kernels[SAC_NUM_MASK_KERNELS];

/* What there must be room for. */
typedef struct sac_mask_room {
    int64_t capacity; /* entries */
    int64_t values;   /* numbers that the mask's own mask_mod reads */
    bool kinds;       /* of every block, for SAC_MASK_KINDS */
    bool by_key;      /* the lists by column too */
    bool bits;        /* beside every entry */
} sac_mask_room;

/* Gives args' arrays their places at `memory`, which may be NULL or no real address; returns the bytes. The first
 * *cleared of them begin as 0. args has its batch, num_heads, rows and columns. */
size_t sac_mask_lists_lay_out(sac_mask_args *args, const sac_mask_room *room, void *memory, size_t *cleared);

/* From counting to the lists by column, as far as args has arrays for them. The device has been entered, and the
 * memory cleared. */
saccade_status sac_mask_lists_launch(saccade_context *ctx, const sac_cuda_device *device,
                                     const sac_mask_args *args);

#endif
