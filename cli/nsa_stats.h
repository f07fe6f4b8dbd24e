/* nsa_stats.h - what native sparse attention keeps of dense attention: in numbers, and as a picture. */
#ifndef NSA_STATS_H
#define NSA_STATS_H

#include "chart.h"
#include "nsa_work.h"

/* After nsa_work_forward: prints, per head, the share of dense causal attention's softmax mass on the selected blocks,
 * in the window and in either, and the error of out against dense. Returns the exit code. */
int print_nsa_stats(const nsa_work *work);

/* Draws one head of one sequence: each query's mass, coloured by what keeps it. */
int draw_nsa_map(const nsa_work *work, int64_t batch, int64_t head, const picture_files *files);

#endif
