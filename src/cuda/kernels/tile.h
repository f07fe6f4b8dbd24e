/* tile.h - tiles in shared memory, fragments of them, and products of fragments: the portable kernels' arithmetic.
 *
 * A tile of R rows and C columns lies row by row at a pitch of C + 8 elements. That odd number of 16-byte chunks
 * puts the eight rows that one ldmatrix phase reads, at one column, into different banks.
 *
 * Fragments of every dtype are owned alike, by pairs of neighbours along the reduction index: lane l, with
 * g = l / 4 and t = l % 4, holds of a 16 x 16 operand A the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8).
 * So an accumulator of one product, packed in pairs, is an A operand of the next without any exchange. In fp32 the
 * pair (2t, 2t + 1) takes the places t and t + 4 of an m16n8k8 product; A and B agree on that order, and a sum
 * does not care.
 */
#ifndef SAC_KERNELS_TILE_H
#define SAC_KERNELS_TILE_H

#include "cuda/kernels/element.h"
#include "cuda/kernels/ptx/mma.h"

/* How an operand lies in memory: its rows (or columns) by the reduction index k, or k by its rows. */
enum operand_layout { K_INNER, K_OUTER };

typedef struct frag_a {
    pair p[4]; /* 16 x 16 */
} frag_a;
typedef struct frag_b {
    pair p[2]; /* 16 x 8 */
} frag_b;

SAC_FN constexpr int round_up(int x, int to) { return (x + to - 1) / to * to; }
SAC_FN constexpr int pitch_of(int columns) { return columns + 8; }
SAC_FN constexpr int tile_bytes(int rows, int columns) {
    return rows * pitch_of(columns) * (int)sizeof(element);
}
SAC_FN constexpr int power_of_two_above(int x) { return x <= 1 ? 1 : 2 * power_of_two_above((x + 1) / 2); }

/* ---- global to shared ---- */

/* Starts copying 16 bytes; zeros where they are not present, and then `from` may be any address. */
SAC_FN void chunk_load(ptx_smem to, const element *from, bool present) {
#if ALIGNED
    ptx_cp_async(to, from, present);
#else
    for (int e = 0; e < 16 / (int)sizeof(element); e++)
        element_store_shared(to + e * sizeof(element), present ? from[e] : (element)0);
#endif
}

/* Starts copying rows [0, num_rows) of `from` (columns [0, COLS), row_stride elements apart) into a tile of
 * PADDED columns; what the source lacks becomes zero, so that no stray NaN meets a zero weight. */
template <int ROWS, int COLS, int PADDED>
SAC_FN void tile_load(ptx_smem tile, const element *from, int64_t row_stride, int num_rows) {
    constexpr int CHUNK = 16 / sizeof(element), CHUNKS = PADDED / CHUNK,
                  LANES_A_ROW = power_of_two_above(CHUNKS);
    constexpr int STEP = NUM_THREADS / LANES_A_ROW;
    static_assert(STEP > 0, "a row is at most one chunk a thread");
    int chunk = threadIdx.x % LANES_A_ROW, row = threadIdx.x / LANES_A_ROW;
    if (chunk >= CHUNKS) return;
    const element *p = from + row * row_stride + chunk * CHUNK;
    ptx_smem to = tile + (row * pitch_of(PADDED) + chunk * CHUNK) * sizeof(element);
    bool column_present = chunk * CHUNK < COLS;
#pragma unroll
    for (int i = 0; i < round_up(ROWS, STEP) / STEP; i++, row += STEP) {
        if (ROWS % STEP != 0 && row >= ROWS) break;
        bool present = column_present && row < num_rows;
        chunk_load(to, present ? p : from, present);
        p += STEP * row_stride;
        to += STEP * pitch_of(PADDED) * sizeof(element);
    }
}

/* ---- shared to registers ---- */

/* Where in a tile this lane's part of a 16 x 16 block begins, bytes. ROWS_FIRST: the four 8 x 8 matrices go down
 * the rows first (A by K_INNER, B by K_OUTER), else along the columns first. */
template <bool ROWS_FIRST, int PITCH> SAC_FN int lane_offset(void) {
    int lane = threadIdx.x % 32;
    int row = ROWS_FIRST ? lane % 16 : lane % 8 + lane / 16 * 8;
    int column = ROWS_FIRST ? lane / 16 * 8 : lane / 8 % 2 * 8;
    return (row * PITCH + column) * (int)sizeof(element);
}

#if DTYPE == 0
template <operand_layout LAYOUT, int PITCH> SAC_FN int lane_offset_a(void) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    return (LAYOUT == K_INNER ? g * PITCH + 2 * t : 2 * t * PITCH + g) * 4;
}
template <operand_layout LAYOUT, int PITCH> SAC_FN int lane_offset_b(void) {
    return lane_offset_a<LAYOUT, PITCH>();
}

/* The pair at (row r, reduction index k) from this lane's own. */
template <operand_layout LAYOUT, int PITCH> SAC_FN pair pair_at(ptx_smem lane, int r, int k) {
    if (LAYOUT == K_INNER) return ptx_ld_f32x2(lane + (r * PITCH + k) * 4);
    return make_float2(ptx_ld_f32(lane + (k * PITCH + r) * 4), ptx_ld_f32(lane + ((k + 1) * PITCH + r) * 4));
}
template <operand_layout LAYOUT, int PITCH> SAC_FN void frag_load_a(frag_a *a, ptx_smem lane) {
    a->p[0] = pair_at<LAYOUT, PITCH>(lane, 0, 0);
    a->p[1] = pair_at<LAYOUT, PITCH>(lane, 8, 0);
    a->p[2] = pair_at<LAYOUT, PITCH>(lane, 0, 8);
    a->p[3] = pair_at<LAYOUT, PITCH>(lane, 8, 8);
}
template <operand_layout LAYOUT, int PITCH> SAC_FN void frag_load_b(frag_b b[2], ptx_smem lane, int count) {
#pragma unroll
    for (int i = 0; i < count; i++) {
        b[i].p[0] = pair_at<LAYOUT, PITCH>(lane, 8 * i, 0);
        b[i].p[1] = pair_at<LAYOUT, PITCH>(lane, 8 * i, 8);
    }
}
#else
template <operand_layout LAYOUT, int PITCH> SAC_FN int lane_offset_a(void) {
    return lane_offset<LAYOUT == K_INNER, PITCH>();
}
template <operand_layout LAYOUT, int PITCH> SAC_FN int lane_offset_b(void) {
    return lane_offset<LAYOUT == K_OUTER, PITCH>();
}
template <operand_layout LAYOUT, int PITCH> SAC_FN void frag_load_a(frag_a *a, ptx_smem lane) {
    LAYOUT == K_INNER ? ptx_ldmatrix(a->p, lane) : ptx_ldmatrix_trans(a->p, lane);
}
/* One or two neighbouring 16 x 8 fragments; here two come at the price of one. */
template <operand_layout LAYOUT, int PITCH> SAC_FN void frag_load_b(frag_b b[2], ptx_smem lane, int) {
    uint32_t d[4];
    LAYOUT == K_INNER ? ptx_ldmatrix(d, lane) : ptx_ldmatrix_trans(d, lane);
    b[0].p[0] = d[0], b[0].p[1] = d[1];
    b[1].p[0] = d[2], b[1].p[1] = d[3];
}
#endif

/* ---- products ---- */

#if DTYPE == 0
/* x = high + low, both tf32: three products of halves keep fp32's 24 bits where one keeps 11. */
typedef struct split_tf32 {
    uint32_t high, low;
} split_tf32;
SAC_FN split_tf32 split_of(float x) {
    split_tf32 s;
    s.high = ptx_tf32(x);
    s.low = ptx_tf32(x - __int_as_float((int)s.high));
    return s;
}
SAC_FN void mma_half(float d[4], pair a0, pair a1, pair b) {
    split_tf32 s[4] = {split_of(a0.x), split_of(a1.x), split_of(a0.y), split_of(a1.y)};
    split_tf32 r[2] = {split_of(b.x), split_of(b.y)};
    uint32_t high_a[4] = {s[0].high, s[1].high, s[2].high, s[3].high};
    uint32_t low_a[4] = {s[0].low, s[1].low, s[2].low, s[3].low};
    uint32_t high_b[2] = {r[0].high, r[1].high}, low_b[2] = {r[0].low, r[1].low};
    ptx_mma_tf32(d, low_a, high_b);
    ptx_mma_tf32(d, high_a, low_b);
    ptx_mma_tf32(d, high_a, high_b);
}
/* Tensor cores truncate where they add; over thousands of steps that is a drift. So each step sums on its own, and
 * an ordinary addition, which rounds to nearest, takes it over. */
SAC_FN void frag_mma(float d[4], const frag_a *a, const frag_b *b) {
    float step[4] = {0, 0, 0, 0};
    mma_half(step, a->p[0], a->p[1], b->p[0]);
    mma_half(step, a->p[2], a->p[3], b->p[1]);
#pragma unroll
    for (int e = 0; e < 4; e++) d[e] += step[e];
}
#elif DTYPE == 1
SAC_FN void frag_mma(float d[4], const frag_a *a, const frag_b *b) { ptx_mma_f16(d, a->p, b->p); }
#else
SAC_FN void frag_mma(float d[4], const frag_a *a, const frag_b *b) { ptx_mma_bf16(d, a->p, b->p); }
#endif

/* A warp's accumulator: MT x NT blocks of 16 x 8. */
template <int MT, int NT> SAC_FN void acc_clear(float (&acc)[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[m][n][e] = 0;
}

/* acc += A B over KT steps of 16. a and b: this lane's place at the warp's first block (lane_offset_a, _b). */
template <operand_layout A, int A_PITCH, operand_layout B, int B_PITCH, int KT, int MT, int NT>
SAC_FN void gemm(float (&acc)[MT][NT][4], ptx_smem a, ptx_smem b) {
    constexpr int BLOCK = 16 * sizeof(element); /* 16 columns, or with the pitch 16 rows */
#pragma unroll
    for (int k = 0; k < KT; k++) {
        frag_a fa[MT];
#pragma unroll
        for (int m = 0; m < MT; m++)
            frag_load_a<A, A_PITCH>(&fa[m], a + (A == K_INNER ? m * A_PITCH + k : m + k * A_PITCH) * BLOCK);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            frag_b fb[2];
            frag_load_b<B, B_PITCH>(fb,
                                    b + (B == K_INNER ? n / 2 * B_PITCH + k : n / 2 + k * B_PITCH) * BLOCK,
                                    n + 1 < NT ? 2 : 1);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                frag_mma(acc[m][n], &fa[m], &fb[0]);
                if (n + 1 < NT) frag_mma(acc[m][n + 1], &fa[m], &fb[1]);
            }
        }
    }
}

/* The same with A in registers: its KT steps. */
template <operand_layout B, int B_PITCH, int KT, int STEPS, int MT, int NT>
SAC_FN void gemm_from_frags(float (&acc)[MT][NT][4], const frag_a (&a)[STEPS][MT], ptx_smem b) {
    constexpr int BLOCK = 16 * sizeof(element);
#pragma unroll
    for (int k = 0; k < KT; k++)
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            frag_b fb[2];
            frag_load_b<B, B_PITCH>(
                fb, b + (B == K_INNER ? n / 2 * B_PITCH + k : n / 2 + k * B_PITCH) * BLOCK, 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                frag_mma(acc[m][n], &a[k][m], &fb[0]);
                frag_mma(acc[m][n + 1], &a[k][m], &fb[1]);
            }
        }
}

/* The k-th 16 columns of an accumulator as an A operand. */
template <int NT> SAC_FN void frag_of_acc(frag_a *a, const float (&acc)[NT][4], int k) {
    a->p[0] = pair_make(acc[2 * k][0], acc[2 * k][1]);
    a->p[1] = pair_make(acc[2 * k][2], acc[2 * k][3]);
    a->p[2] = pair_make(acc[2 * k + 1][0], acc[2 * k + 1][1]);
    a->p[3] = pair_make(acc[2 * k + 1][2], acc[2 * k + 1][3]);
}

/* acc += P B with P in registers, as the accumulator of an earlier product. FINITE: what is NaN or Inf in B counts
 * 0. */
template <operand_layout B, int B_PITCH, int KT, bool FINITE = false, int MT, int NT, int PT>
SAC_FN void gemm_from_acc(float (&acc)[MT][NT][4], const float (&p)[MT][PT][4], ptx_smem b) {
    constexpr int BLOCK = 16 * sizeof(element);
#pragma unroll
    for (int k = 0; k < KT; k++) {
        frag_a fa[MT];
#pragma unroll
        for (int m = 0; m < MT; m++) frag_of_acc(&fa[m], p[m], k);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            frag_b fb[2];
            frag_load_b<B, B_PITCH>(
                fb, b + (B == K_INNER ? n / 2 * B_PITCH + k : n / 2 + k * B_PITCH) * BLOCK, 2);
            if (FINITE)
                for (int i = 0; i < 4; i++) fb[i / 2].p[i % 2] = pair_finite(fb[i / 2].p[i % 2]);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                frag_mma(acc[m][n], &fa[m], &fb[0]);
                frag_mma(acc[m][n + 1], &fa[m], &fb[1]);
            }
        }
    }
}

/* ---- rows across a quad of lanes ---- */

SAC_FN float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
SAC_FN float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

/* The product of two rows in shared memory; all four lanes get it. */
template <int COLUMNS> SAC_FN float quad_dot(ptx_smem a, ptx_smem b) {
    float dot = 0;
    for (int d = threadIdx.x % 4 * 2; d < COLUMNS; d += 8) {
        float2 x = pair_floats(pair_load_shared(a + d * sizeof(element)));
        float2 y = pair_floats(pair_load_shared(b + d * sizeof(element)));
        dot += x.x * y.x + x.y * y.y;
    }
    return quad_sum(dot);
}

#endif
