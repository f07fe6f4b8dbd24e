/* nsa_best.h - the best so far of a stream of candidates, kept by one warp in registers, and between times in
 * shared memory.
 *
 * Places are sorted, best first; free ones hold -inf, and so does nothing else. Candidates come in ascending order
 * and go behind equal scores, so ties go to the lower index; NaN and -inf never compare greater and never enter.
 * After the first few tiles hardly anything passes the last place, so a whole tile is tested against it first. What
 * passes is not tested again as the place rises: a few more insertions, each a third of what one with a test in
 * between takes.
 *
 * Needs PLACES: 32 times so many are held, at least as many as any list has room for. What is pushed behind the room
 * takes part no longer, but does no harm.
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

/* Lane l holds places l, 32 + l and so on. */
typedef struct best_lanes {
    float score[PLACES];
    int32_t index[PLACES];
} best_lanes;

SAC_FN best_lanes best_load(const best_place *best, int32_t room) {
    best_lanes lanes;
#pragma unroll
    for (int p = 0; p < PLACES; p++) {
        const int32_t i = p * LANES + lane_index();
        lanes.score[p] = i < room ? best[i].score : -INFINITE;
        lanes.index[p] = i < room ? best[i].index : -1;
    }
    return lanes;
}

SAC_FN void best_store(best_place *best, int32_t room, const best_lanes *lanes) {
#pragma unroll
    for (int p = 0; p < PLACES; p++) {
        const int32_t i = p * LANES + lane_index();
        const best_place place = {lanes->score[p], lanes->index[p]};
        if (i < room) best[i] = place;
    }
    __syncwarp();
}

/* Everything behind the new one moves by a place. */
SAC_FN void best_insert(best_lanes *lanes, float score, int32_t index) {
#pragma unroll
    for (int p = PLACES - 1; p >= 0; p--) {
        float before = __shfl_up_sync(ALL_LANES, lanes->score[p], 1);
        int32_t before_index = __shfl_up_sync(ALL_LANES, lanes->index[p], 1);
        if (p > 0) { /* the last lane's before this */
            const float carried = __shfl_sync(ALL_LANES, lanes->score[p - 1], LANES - 1);
            const int32_t carried_index = __shfl_sync(ALL_LANES, lanes->index[p - 1], LANES - 1);
            if (lane_index() == 0) before = carried, before_index = carried_index;
        }
        const bool moves = score > lanes->score[p], first = p == 0 && lane_index() == 0;
        if (!moves) continue;
        const bool from_before = !first && score > before;
        lanes->score[p] = from_before ? before : score;
        lanes->index[p] = from_before ? before_index : index;
    }
}

/* What a candidate must exceed. */
SAC_FN float best_bar(const best_lanes *lanes, int32_t room) {
    float bar = lanes->score[0];
#pragma unroll
    for (int p = 1; p < PLACES; p++)
        if ((room - 1) / LANES == p) bar = lanes->score[p];
    return __shfl_sync(ALL_LANES, bar, (room - 1) % LANES);
}

/* Offers one candidate a lane, lane 0's index being `first`; a lane that has none offers -inf. Did one enter? */
SAC_FN bool best_offer(best_lanes *lanes, int32_t room, float score, int32_t first) {
    uint32_t passing = room == 0 ? 0 : __ballot_sync(ALL_LANES, score > best_bar(lanes, room));
    const bool any = passing != 0;
    for (; passing; passing &= passing - 1) {
        const int lane = __ffs(passing) - 1;
        best_insert(lanes, __shfl_sync(ALL_LANES, score, lane), first + lane);
    }
    return any;
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
