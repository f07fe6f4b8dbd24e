/* nsa_best.h - the best so far of a stream of candidates, kept by one warp in shared memory.
 *
 * Places are sorted, best first; free ones hold -inf, and so does nothing else. Candidates come in ascending order and
 * go behind equal scores, so ties go to the lower index; NaN and -inf never compare greater and never enter. After the
 * first few tiles hardly anything passes the last place, so a whole tile is tested against it first.
 */
#ifndef SAC_KERNELS_NSA_BEST_H
#define SAC_KERNELS_NSA_BEST_H

#include "cuda/kernels/element.h"
#include "cuda/kernels/nsa_select.h"
#include "cuda/kernels/warp.h"

typedef struct best_place {
    float score;
    int32_t index; /* -1: free */
} best_place;
static_assert(sizeof(best_place) == SAC_NSA_PLACE_BYTES, "the host lays out shared memory");

SAC_FN void best_clear(best_place *best, int32_t room) {
    const best_place free_place = {-INFINITE, -1};
    for (int32_t i = lane_index(); i < room; i += LANES) best[i] = free_place;
    __syncwarp();
}

/* What a score must exceed. */
SAC_FN float best_bar(const best_place *best, int32_t room) {
    return room > 0 ? best[room - 1].score : INFINITE;
}

/* Everything behind the new one moves by a place; the last is lost. The last places first, 32 at a time. */
SAC_FN void best_insert(best_place *best, int32_t room, best_place added) {
    for (int32_t first = (room - 1) / LANES * LANES; first >= 0; first -= LANES) {
        const int32_t i = first + lane_index();
        best_place place = added, previous = added;
        if (i < room) place = best[i];
        if (i > 0 && i < room) previous = best[i - 1];
        const bool moves = i < room && added.score > place.score;
        const bool from_before = i > 0 && added.score > previous.score;
        __syncwarp();
        if (moves) best[i] = from_before ? previous : added;
        __syncwarp();
        if (!__shfl_sync(ALL_LANES, moves, 0)) return;
    }
}

/* Offers one candidate a lane, lane 0's index being `first`; a lane that has none offers -inf. */
SAC_FN void best_offer(best_place *best, int32_t room, float score, int32_t first) {
    uint32_t passing = __ballot_sync(ALL_LANES, score > best_bar(best, room));
    while (passing) {
        const int lane = __ffs(passing) - 1;
        const best_place added = {__shfl_sync(ALL_LANES, score, lane), first + lane};
        if (added.score > best_bar(best, room)) best_insert(best, room, added);
        passing &= passing - 1;
    }
}

/* Writes the indices in ascending order to slots, from `used` on; returns how many slots are used then. */
SAC_FN int32_t best_list(const best_place *best, int32_t room, int32_t *slots, int32_t used) {
    int32_t count = 0;
    for (int32_t first = 0; first < room; first += LANES) {
        const int32_t i = first + lane_index(), index = i < room ? best[i].index : -1;
        int32_t smaller = 0;
        for (int32_t other = 0; other < room; other++)
            smaller += best[other].index >= 0 && best[other].index < index;
        if (index >= 0) slots[used + smaller] = index;
        count += __popc(__ballot_sync(ALL_LANES, index >= 0));
    }
    return used + count;
}

#endif
