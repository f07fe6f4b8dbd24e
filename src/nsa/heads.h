/* heads.h - a call over a range of its key/value heads is again a call, and its branches and gate can take one stretch
 * of the queries after the other: so that at great lengths only a part of what a call must keep is alive at a time. */
#ifndef SAC_NSA_HEADS_H
#define SAC_NSA_HEADS_H

#include "nsa/nsa.h"

/* How many key/value heads a part has, the last one perhaps fewer. */
int32_t sac_nsa_heads_at_once(const sac_nsa_call *call);

/* How many queries of each sequence attend and are gated before the next. On the host a stretch's outputs stay in the
 * cache; elsewhere, in a pack and in a backward call it is all of them. */
int32_t sac_nsa_queries_at_once(const saccade_context *ctx, const sac_nsa_call *call);

/* The part that starts at key/value head `first`. */
sac_nsa_call sac_nsa_part(const sac_nsa_call *call, int32_t first);

#endif
