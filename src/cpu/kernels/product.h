/* product.h - products over tiles that hide some pairs, and over DIAGONAL tiles. */
#ifndef SAC_CPU_KERNELS_PRODUCT_H
#define SAC_CPU_KERNELS_PRODUCT_H

#include "cpu/kernels/tile.h"

#define sac_hides_pairs SAC_FOR_ISA(sac_hides_pairs)
#define sac_product SAC_FOR_ISA(sac_product)
#define sac_diagonal_products SAC_FOR_ISA(sac_diagonal_products)

/* Does the tile hide some pair? */
bool sac_hides_pairs(const q_tile *t, const sac_tile *tile);

/* sac_gemm, where one side holds coefficients that are 0 for hidden pairs: those stay without effect even if the other
 * side holds NaN or infinity there. */
typedef enum sac_zeros { SAC_ZEROS_IN_A, SAC_ZEROS_IN_B } sac_zeros;
void sac_product(const q_tile *t, const sac_tile *tile, sac_zeros zeros, const gemm *g);

/* products[lane] = query row of the lane (`rows_t`, as sac_tile_load left it) times the one row of `view` that a
 * DIAGONAL tile shows it; 0 for a key outside the tile. `room`: (words, LANES). */
void sac_diagonal_products(const q_tile *t, const sac_tile *tile, const float *rows_t, const sac_view *view,
                           int dim, float *products, float *room);

#endif
