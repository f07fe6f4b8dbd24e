/* attn_sm90_consumer.h - what the consumers of the kernels that own query tiles have in common: how they come by
 * tiles and give them back; and the roles of a CTA's warpgroups.
 *
 * The including file defines consumer, with the members params, args, smem, q (the record of the query tile at hand),
 * q_ring, k, v and scale_log2; and the four functions declared here.
 */
#ifndef SAC_ATTN_SM90_CONSUMER_H
#define SAC_ATTN_SM90_CONSUMER_H

#include "cuda/kernels/attn_sm90_producer.h"
#include "cuda/kernels/attn_sm90_score.h"
#include "cuda/kernels/ptx/warpgroup.h"

/* This warpgroup's rows of a tile: their sums start, walk the tile's keys (and give q back) and go to memory; and
 * what goes to rows that are row_shift behind them, and see nothing. */
SAC_FN void start_rows(consumer *c);
SAC_FN void attend(consumer *c);
SAC_FN void finish_tile(consumer *c);
SAC_FN void store(consumer *c, int32_t row_shift);

SAC_FN kv_record wait_k(const consumer *c) {
    ptx_mbarrier_wait(&c->smem->k_full[c->k.stage], c->k.parity);
    return c->smem->kv_tile[c->k.stage];
}

/* Gives back a tile that only other warpgroups see. A stage may be given back only once it is full: before, its barrier
 * may still count the turn before. */
SAC_FN void pass_tile(consumer *c) {
    release(&c->smem->k_empty[c->k.stage]);
    ring_next(&c->k, K_STAGES);
    ptx_mbarrier_wait(&c->smem->v_full[c->v.stage], c->v.parity);
    release(&c->smem->v_empty[c->v.stage]);
    ring_next(&c->v, V_STAGES);
}

/* The slot of q is free. */
SAC_FN void q_read(const consumer *c) { release(&c->smem->q_empty[c->q_ring.stage]); }

/* Query tiles, until a record says that none is left. */
SAC_FN void consume(const kernel_params *params, smem_layout *smem) {
    const ring start = {0, 0}, q_start = {(uint32_t)warpgroup(), 0};
    consumer c;
    c.params = params;
    c.args = &params->args;
    c.smem = smem;
    c.q_ring = q_start;
    c.k = c.v = start;
    c.scale_log2 = score_to_log2(c.args);
    for (c.q = smem->q_tile;; c.q = record_after(smem, c.q)) {
        ptx_mbarrier_wait(&smem->q_full[c.q_ring.stage], c.q_ring.parity);
        if (warp_has(c.q->batch < 0)) break;
        start_rows(&c);
        if (warp_has(c.q->any))
            attend(&c);
        else
            q_read(&c);
        finish_tile(&c);
        ring_skip(&c.q_ring, CONSUMERS, Q_SLOTS);
#if RAGGED /* a call may have more packed rows behind its last sequence than a sequence has */
        const int32_t turn = rows_a_turn(params);
        if (c.q->batch == c.args->batch)
            for (int32_t shift = turn; c.q->begin + shift < c.q->end; shift += turn) store(&c, shift);
#endif
    }
}

/* The first warpgroup has few registers: one thread produces, and forward two warps look through values. */
SAC_FN void run_cta(const kernel_params *params) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    smem_layout *smem = (smem_layout *)dynamic_smem;
    if (threadIdx.x == 0) init_barriers(smem);
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx_give_registers(PRODUCER_REGS);
        if (threadIdx.x == 0) produce(params, smem);
        if (threadIdx.x / 32 == 1) open_counter(params);
#if !BACKWARD
        if (threadIdx.x / 32 == 2 || threadIdx.x / 32 == 3) inspect_values(smem, threadIdx.x / 32 - 2);
#endif
    } else {
        ptx_take_registers(CONSUMER_REGS);
        consume(params, smem);
    }
}

#endif
