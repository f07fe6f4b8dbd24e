/* tile.h - a query tile at work: its rows lie in vector lanes.
 *
 * Every matrix of a tile has the queries as its columns, Q_TILE apart from row to row: scores[key][lane],
 * out_t[d][lane]. So the row maximum, the row sum, the band's ends and the sink are vectors, a softmax needs no
 * horizontal step, and keys and values enter the products as they lie in memory. A query's heads are neighbours: some
 * lanes of a tile then see few keys that not all of them see. Lanes beyond the tile's rows hold queries of zeros and
 * are never stored.
 */
#ifndef SAC_CPU_KERNELS_TILE_H
#define SAC_CPU_KERNELS_TILE_H

#include "cpu/kernels.h"
#include "cpu/key_walk.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/panel.h"

enum { Q_TILE = SAC_CPU_Q_TILE };

#define LOG2E 1.44269504f
#define LN2 0.69314718f

/* `keys`: of a key tile. Tiles that are worked on together share all of it but q_t, state and what is known of each
 * lane. */
typedef struct tile_scratch {
    float *rows;      /* (LANES, row_words) staging of whole rows */
    float *more_rows; /* backward: two more of them */
    int row_words;
    float *q_t;             /* (words of a q row, Q_TILE) */
    float *scores;          /* (keys, Q_TILE); the probabilities take their place */
    float *paired;          /* (keys / 2, Q_TILE) probabilities or gradients in pairs of keys */
    float *state;           /* row_max, row_sum, out_t */
    float *k_room, *v_room; /* panels of a key tile, where they are not read in place */
    float *v_turned;        /* v_room by columns, for tiles */
    float *slope;           /* (Q_TILE) ALiBi */
    int32_t *head, *query;  /* (Q_TILE) of the lane's row */
    int32_t *lo, *hi;       /* (Q_TILE) first and one past the last visible key */
    int32_t *list_bit;      /* (Q_TILE) the one that must be among a key tile's bits */
    uint8_t *visible;       /* (keys) */
    /* backward only */
    float *dout_t, *dq_t;      /* like q_t, out_t */
    float *q_rows, *dout_rows; /* (Q_TILE, padded dim), in pairs of rows where words are pairs */
    float *grad;               /* (keys, Q_TILE): dp, then dscore */
    float *unmodified;         /* (keys, Q_TILE): scores as the score_mod was given them, -inf where hidden */
    float *coefficients;       /* (keys, Q_TILE) bf16: left sides of dv and dk, in pairs of queries */
    float *lse, *dlse;         /* (Q_TILE); lse in base 2 */
    float *delta, *p_dp; /* (Q_TILE): sum of dout out - dlse; sum of p dp so far, the same but not rounded */
    float *k_pairs;      /* k contracted over keys */
} tile_scratch;

typedef struct q_tile {
    const sac_attention_call *call;
    const sac_attention_args *args;
    sac_cpu_tile at;
    sac_sequence seq;
    sac_band band;
    sac_range q;        /* the queries of all lanes: of a strip perhaps not all of the tile's */
    int rows, lanes;    /* lanes: rows rounded up to whole vectors */
    int words, words_v; /* of a row of q and of v */
    bool pairs;         /* words are pairs of bf16 */
    bool modified;      /* scores need more than one scale: they are finished before the softmax */
    float exponent;     /* what turns finished scores into exponents of 2; positive */
    tile_scratch scratch;
} q_tile;

#define sac_kv_tile SAC_FOR_ISA(sac_kv_tile)
#define sac_tile_scratch SAC_FOR_ISA(sac_tile_scratch)
#define sac_tiles_begin SAC_FOR_ISA(sac_tiles_begin)
#define sac_tile_strips SAC_FOR_ISA(sac_tile_strips)
#define sac_tile_trim SAC_FOR_ISA(sac_tile_trim)
#define sac_tile_load SAC_FOR_ISA(sac_tile_load)
#define sac_tile_store SAC_FOR_ISA(sac_tile_store)
#define sac_tile_load_rows SAC_FOR_ISA(sac_tile_load_rows)
#define sac_tile_gather_keys SAC_FOR_ISA(sac_tile_gather_keys)
#define sac_scores_finish SAC_FOR_ISA(sac_scores_finish)
#define sac_scores_finish_diagonal SAC_FOR_ISA(sac_scores_finish_diagonal)

/* Keys in a key tile. */
int32_t sac_kv_tile(const sac_attention_args *args, bool backward);

/* Lays out scratch for num_tiles tiles from `base` on; returns its bytes. base NULL: only measures. */
size_t sac_tile_scratch(const sac_attention_args *args, bool backward, int num_tiles, void *base,
                        tile_scratch scratch[]);

/* Everything about the tiles of a bundle but the data; returns their number. */
int sac_tiles_begin(q_tile t[], const sac_attention_call *call, const sac_cpu_bundle *rows, bool backward,
                    void *scratch);

/* Strips: up to `width` lanes of the tile each, as tiles of their own; returns their number. */
enum { MIN_STRIP = 32, MAX_STRIPS = Q_TILE / MIN_STRIP };
int sac_tile_strips(const q_tile *t, int width, q_tile strips[MAX_STRIPS]);

/* Where the band cuts through the key tile, cuts that to what some lane sees of it; false if that is nothing. */
bool sac_tile_trim(const q_tile *t, sac_tile *tile);

/* Where the lane's row begins in a tensor that has query heads. */
static inline void *sac_lane_row(const q_tile *t, const sac_view *view, int lane) {
    int64_t size = t->args->dtype == SAC_F32 ? 4 : 2, row = t->seq.q_row + t->scratch.query[lane];
    return (char *)view->data + size * (t->at.b * view->batch_stride + row * view->row_stride +
                                        t->scratch.head[lane] * view->head_stride);
}

/* Row j of the sequence in k or v. */
static inline const void *sac_key_row(const q_tile *t, const sac_view *view, int32_t j) {
    int64_t size = t->args->dtype == SAC_F32 ? 4 : 2, row = t->seq.k_row + j;
    return (const char *)view->data + size * (t->at.b * view->batch_stride + row * view->row_stride +
                                              t->at.h / t->args->group * view->head_stride);
}

/* Asks for rows [begin, end) of k or v ahead of their use: while scores are turned into probabilities, nobody reads
 * memory. Rows beyond the sequence are not asked for. */
static inline void sac_prefetch_keys(const q_tile *t, const sac_view *view, int dim, int32_t begin,
                                     int32_t end) {
    const int64_t size = t->args->dtype == SAC_F32 ? 4 : 2;
    const char *row = sac_key_row(t, view, begin);
    for (int32_t j = begin; j < sac_min(end, t->seq.k_len); j++, row += size * view->row_stride)
        for (int64_t at = 0; at < size * dim; at += 64) prefetch_line(row + at);
}

/* An fp32 row value of a lane, as lse and dlse have. */
static inline float *sac_lane_value(const q_tile *t, const sac_row_view *view, int lane) {
    return view->data + t->at.b * view->batch_stride + t->scratch.head[lane] * view->head_stride +
           (t->seq.q_row + t->scratch.query[lane]) * view->row_stride;
}

/* The tile's rows of a tensor, words transposed: target[word][lane]. */
void sac_tile_load(const q_tile *t, float *target, const sac_view *view, int dim);

/* The tile's rows of a tensor as the right side of a product that sums over them: fp32 rows, or pairs of rows, padded
 * with zeros to whole vectors both ways. */
void sac_tile_load_rows(const q_tile *t, float *target, const sac_view *view, int dim);

/* source[d][lane], which becomes factor[lane] times itself, into the tile's rows of a tensor. */
void sac_tile_store(const q_tile *t, const sac_view *view, float *source, const float *factor, int dim);

/* For LANES lanes from `first` on, the row of k or v that a DIAGONAL tile shows them, transposed:
 * target[word][lane - first], zeros for lanes that are not `wanted`. `widened`: fp32 values, not words. */
void sac_tile_gather_keys(const q_tile *t, float *target, const sac_view *view, int dim, int first,
                          int32_t delta, const uint8_t *wanted, bool widened);

/* Raw products to scores: scale, softcap, ALiBi, score_mod, and -inf for what is hidden. In the plain case the scale
 * is left to t->exponent. `unmodified`, if not NULL, gets the score_mod's input. */
void sac_scores_finish(const q_tile *t, const sac_tile *tile, float *scores, float *unmodified);

/* The same for a DIAGONAL tile: one score a lane, of key query + delta; -inf where that lies outside the tile. */
void sac_scores_finish_diagonal(const q_tile *t, const sac_tile *tile, float *scores, float *unmodified);

#endif
