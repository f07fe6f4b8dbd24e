"""Which backend a call on torch tensors would take, and for each other every reason why not."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from .._call import AttentionOptions
from ..backends import Backend, explain_call
from ._masks import import_lists, torch_lists
from ._modifiers import as_modifier


def get_attention_backend(
    q: Tensor, k: Tensor, v: Tensor, *, training: bool = False, **options: Any
) -> list[Backend]:
    """Every backend for the call with these tensors (B, N, H, D) and AttentionOptions: usable ones first, best first,
    and for each other every reason why not. score_mod, mask_mod and block_mask may be FlexAttention's too. training:
    for the backward pass too. Nothing is computed."""
    block_mask = options.get("block_mask")
    if isinstance(block_mask, TorchBlockMask):
        lists = torch_lists(block_mask)
        options["block_mask"] = import_lists(lists, *block_mask.seq_lengths, block_mask.BLOCK_SIZE) if lists else None
        if lists and options.get("mask_mod") is None:
            options["mask_mod"] = block_mask.mask_mod
    for kind in ("score", "mask"):
        modifier = options.get(f"{kind}_mod")
        if modifier is not None:
            options[f"{kind}_mod"] = as_modifier(kind, modifier, q.device)
    return explain_call(q, k, v, AttentionOptions(**options), training=training)
