/* heads.h - a call over a range of its key/value heads is again a call: so that at great lengths only a part of what a
 * call must keep is alive at a time. */
#ifndef SAC_NSA_HEADS_H
#define SAC_NSA_HEADS_H

#include "nsa/nsa.h"

/* How many key/value heads a part has, the last one perhaps fewer. */
int32_t sac_nsa_heads_at_once(const sac_nsa_call *call);

/* The part that starts at key/value head `first`. */
sac_nsa_call sac_nsa_part(const sac_nsa_call *call, int32_t first);

#endif
