/* attention_map.h - where attention goes, as a picture. */
#ifndef ATTENTION_MAP_H
#define ATTENTION_MAP_H

#include "chart.h"
#include "workload.h"

/* Draws the probabilities of one head of one batch entry, averaged over cells of a few queries and summed over a few
 * keys. `mask` is what the subtitle calls the computation. Returns the exit code, after a message unless EXIT_OK. */
int draw_attention_map(const workload *work, int64_t batch, int64_t head, const char *mask,
                       const picture_files *files);

#endif
