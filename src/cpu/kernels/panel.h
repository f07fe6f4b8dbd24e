/* panel.h - rows of tensors as the products want them: widened, transposed or paired, and back again.
 *
 * A word is 32 bits: one fp32 value, or two bf16 values that vdpbf16ps multiplies at once (`pairs`). Rows are padded
 * with zeros where vectors are wider than they are.
 */
#ifndef SAC_CPU_KERNELS_PANEL_H
#define SAC_CPU_KERNELS_PANEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/kernels/isa.h"
#include "cpu/kernels/simd.h"

/* Rows for the left side of a product. */
typedef struct panel {
    const void *data;
    ptrdiff_t stride; /* bytes */
} panel;

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

#define sac_widen SAC_FOR_ISA(sac_widen)
#define sac_narrow SAC_FOR_ISA(sac_narrow)
#define sac_panel_rows SAC_FOR_ISA(sac_panel_rows)
#define sac_panel_copy SAC_FOR_ISA(sac_panel_copy)
#define sac_panel_pairs SAC_FOR_ISA(sac_panel_pairs)
#define sac_panel_turn SAC_FOR_ISA(sac_panel_turn)
#define sac_pair_rows SAC_FOR_ISA(sac_pair_rows)
#define sac_panel_finite SAC_FOR_ISA(sac_panel_finite)
#define sac_transpose_in SAC_FOR_ISA(sac_transpose_in)
#define sac_transpose_out SAC_FOR_ISA(sac_transpose_out)

/* n values, a multiple of 8, to and from fp32. */
void sac_widen(float *values, const void *source, int dtype, int n);
void sac_narrow(void *target, const float *values, int dtype, int n);

/* n rows of `dim` values, words along the row: in place where the tensor holds words already, else copied to `room`. */
panel sac_panel_rows(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room);

/* The same, but always copied, so that the rows adjoin. */
panel sac_panel_copy(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room);

/* The same rows, to be contracted over: word (i, d) of pairs holds value d of rows 2i and 2i + 1 (0 beyond n). */
panel sac_panel_pairs(const void *rows, int64_t stride, int dtype, bool pairs, int n, int dim, float *room);

/* Rows of `words` words to columns: row w of the result has word w of all n rows. `room`: the words rounded up to whole
 * vectors, TURNED_ROW words each. */
enum { TURNED_ROW = 128 };
panel sac_panel_turn(const panel *rows, int n, int words, float *room);

/* Two bf16 rows in one: word d holds value d of `low` and, above it, of `high` (NULL: zeros). */
void sac_pair_rows(float *words, const uint16_t *low, const uint16_t *high, int dim);

/* No NaN and no infinity in n rows of `words` words? */
bool sac_panel_finite(const panel *rows, bool pairs, int n, int words);

/* target[w][lane] = source[lane][w] for LANES lanes and `words` words (a multiple of LANES), and back. */
void sac_transpose_in(float *target, ptrdiff_t ldt, const float *source, ptrdiff_t lds, int words);
void sac_transpose_out(float *target, ptrdiff_t ldt, const float *source, ptrdiff_t lds, int words);

#endif
