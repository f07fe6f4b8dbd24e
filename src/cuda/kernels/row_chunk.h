/* row_chunk.h - rows of a tensor in chunks of eight elements, one a lane, for kernels that read every row once.
 *
 * ROW_LANES neighbouring lanes share a row: a power of two, so that they can add up by exchange; a warp takes
 * 32 / ROW_LANES rows at a time. Lanes behind the end of a row hold zeroes.
 */
#ifndef SAC_KERNELS_ROW_CHUNK_H
#define SAC_KERNELS_ROW_CHUNK_H

#include "cuda/kernels/element.h"
#include "cuda/kernels/ptx/global_memory.h"
#include "cuda/kernels/warp.h"

enum { CHUNK = 8 };

#define WIDER_DIM (HEAD_DIM > HEAD_DIM_V ? HEAD_DIM : HEAD_DIM_V)
#define ROW_LANES                                                                                            \
    (WIDER_DIM <= 8     ? 1                                                                                  \
     : WIDER_DIM <= 16  ? 2                                                                                  \
     : WIDER_DIM <= 32  ? 4                                                                                  \
     : WIDER_DIM <= 64  ? 8                                                                                  \
     : WIDER_DIM <= 128 ? 16                                                                                 \
                        : 32)

typedef struct chunk {
    float x[CHUNK];
} chunk;

/* This lane's first column. */
SAC_FN int chunk_column(void) { return lane_index() % ROW_LANES * CHUNK; }

SAC_FN chunk chunk_zero(void) {
    chunk c = {{0, 0, 0, 0, 0, 0, 0, 0}};
    return c;
}

SAC_FN chunk chunk_load_floats(const float *p) {
    const float4 low = ((const float4 *)p)[0], high = ((const float4 *)p)[1];
    chunk c = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    return c;
}

SAC_FN void chunk_store_floats(float *p, const chunk *c) {
    ((float4 *)p)[0] = make_float4(c->x[0], c->x[1], c->x[2], c->x[3]);
    ((float4 *)p)[1] = make_float4(c->x[4], c->x[5], c->x[6], c->x[7]);
}

/* Eight elements as they were loaded: where many loads are to be under way at once, they take half the registers. */
#if ALIGNED && DTYPE != 0
typedef uint4 raw_chunk;

SAC_FN raw_chunk raw_load(const element *p) { return *(const uint4 *)p; }
SAC_FN chunk raw_floats(raw_chunk raw) {
    const float2 a = pair_floats(raw.x), b = pair_floats(raw.y), c = pair_floats(raw.z),
                 d = pair_floats(raw.w);
    chunk all = {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
    return all;
}
#else
typedef chunk raw_chunk;

SAC_FN raw_chunk raw_load(const element *p) {
#if ALIGNED
    return chunk_load_floats(p);
#else
    chunk c;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) c.x[i] = element_load(p + i);
    return c;
#endif
}
SAC_FN chunk raw_floats(raw_chunk raw) { return raw; }
#endif

/* Eight elements at p, in as few accesses as the alignment of rows allows. */
SAC_FN chunk chunk_load(const element *p) { return raw_floats(raw_load(p)); }

SAC_FN void chunk_store(element *p, const chunk *c) {
#if ALIGNED && DTYPE == 0
    chunk_store_floats(p, c);
#elif ALIGNED
    ptx_st_global_u32x4(p, pair_make(c->x[0], c->x[1]), pair_make(c->x[2], c->x[3]),
                        pair_make(c->x[4], c->x[5]), pair_make(c->x[6], c->x[7]));
#else
#pragma unroll
    for (int i = 0; i < CHUNK; i += 2) pair_store(p + i, c->x[i], c->x[i + 1]);
#endif
}

/* sum += factor * c */
SAC_FN void chunk_add(chunk *sum, float factor, const chunk *c) {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) sum->x[i] += factor * c->x[i];
}

/* The sum of what the lanes of a row hold, in all of them. All lanes of the warp take part. */
SAC_FN float row_sum(float x) {
#pragma unroll
    for (int other = ROW_LANES / 2; other > 0; other /= 2) x += __shfl_xor_sync(ALL_LANES, x, other);
    return x;
}

SAC_FN float row_dot(const chunk *a, const chunk *b) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) sum += a->x[i] * b->x[i];
    return row_sum(sum);
}

/* ---- who takes which rows ---- */

/* The lanes of one row keep to one head, so that what belongs to a head stays in registers, while neighbouring ones
 * take its neighbours: together they read rows of all heads from end to end. The number of CTAs is such that it works
 * out. Every lane goes the same number of rounds; past the end it reads the last row again, and must not write. */
typedef struct head_walk {
    int64_t next, step, rows;
    int32_t head;
} head_walk;

typedef struct walk_row {
    int64_t index;
    bool there;
} walk_row;

SAC_FN head_walk head_walk_start(int64_t rows, int32_t heads) {
    enum { ROWS_A_CTA = NUM_THREADS / ROW_LANES };
    const int64_t index = (int64_t)blockIdx.x * ROWS_A_CTA + threadIdx.x / ROW_LANES;
    head_walk w;
    w.step = (int64_t)gridDim.x * ROWS_A_CTA / heads;
    w.next = index / heads;
    w.head = (int32_t)(index - w.next * heads);
    w.rows = rows;
    return w;
}

SAC_FN int64_t head_walk_rounds(const head_walk *w) { return (w->rows + w->step - 1) / w->step; }

SAC_FN walk_row head_walk_next(head_walk *w) {
    walk_row row = {w->next < w->rows ? w->next : w->rows - 1, w->next < w->rows};
    w->next += w->step;
    return row;
}

#endif
