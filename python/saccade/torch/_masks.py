"""Masks and questions that have no counterpart in PyTorch."""

from __future__ import annotations

from typing import Optional

from torch import Tensor

from .. import block_mask as masks
from .._call import AttentionOptions
from ..backends import Backend, explain_call
from ..block_mask import BlockMask


def eagle3_block_mask(
    q_len: int, kv_len: int, lengths: Optional[Tensor] = None, BLOCK_SIZE: tuple[int, int] = (128, 128)
) -> BlockMask:
    """Draft-model training with kv_len = rounds * q_len keys: causal over the first q_len keys, then one key a round.

    lengths (B,): also bounds batch entry b to its first lengths[b] positions. Built without evaluating a mask_mod where
    the block sizes divide the lengths, so that growing kv_len from one round to the next costs microseconds.
    """
    return masks.eagle3(q_len, kv_len, None if lengths is None else lengths.tolist(), block_size=BLOCK_SIZE)


def get_attention_backend(q: Tensor, k: Tensor, v: Tensor, *, training: bool = False, **options) -> list[Backend]:
    """Every backend for the call with these tensors (B, N, H, D) and AttentionOptions: usable ones first, best first,
    and for each other every reason why not."""
    return explain_call(q, k, v, AttentionOptions(**options), training=training)
