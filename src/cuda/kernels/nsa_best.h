/* nsa_best.h - the best so far of a stream of candidates, kept by one warp in shared memory.
 *
 * Places are sorted, best first; free ones hold -inf, and so does nothing else. Candidates come in ascending order and
 * go behind equal scores, so ties go to the lower index; NaN and -inf never compare greater and never enter. After the
 * first few tiles hardly anything passes the last place, so a whole tile is tested against it first.
 *
 * Needs PLACES: 32 times so many are held, at least as many as any list has room for.
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

/* How many places hold a score that is no worse. */
SAC_FN int32_t best_rank(const best_place *best, int32_t room, float score) {
    int32_t low = 0, high = room;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (best[middle].score >= score)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Offers one candidate a lane, lane 0's index being `first`; a lane that has none offers -inf. All that pass enter at once:
 * a candidate goes behind the places that are no worse and the candidates that are before it, a place moves by the
 * candidates that are better. */
SAC_FN void best_offer(best_place *best, int32_t room, float score, int32_t first) {
    if (room == 0) return;
    const bool passes = score > best[room - 1].score;
    const uint32_t passing = __ballot_sync(ALL_LANES, passes);
    if (!passing) return;
    best_place held[PLACES]; /* lane l's: places l, 32 + l and so on */
    int32_t to[PLACES], place = passes ? best_rank(best, room, score) : room;
#pragma unroll
    for (int p = 0; p < PLACES; p++) {
        to[p] = p * LANES + lane_index();
        held[p] = best[sac_min(to[p], room - 1)];
        if (to[p] >= room) to[p] = room;
    }
    for (uint32_t rest = passing; rest; rest &= rest - 1) {
        const int lane = __ffs(rest) - 1;
        const float other = __shfl_sync(ALL_LANES, score, lane);
        place += other > score || (other == score && lane < lane_index());
#pragma unroll
        for (int p = 0; p < PLACES; p++) to[p] += other > held[p].score;
    }
    __syncwarp(); /* every lane has read what it holds */
#pragma unroll
    for (int p = 0; p < PLACES; p++)
        if (to[p] < room) best[to[p]] = held[p];
    const best_place entered = {score, first + lane_index()};
    if (place < room) best[place] = entered;
    __syncwarp();
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
