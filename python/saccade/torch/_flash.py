"""FlashAttention-4's functions, by their names, shapes and defaults, and in their order."""

from __future__ import annotations

from typing import Optional, Union

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask
from ._attend import attend
from ._masks import from_torch_lists
from ._modifiers import Mod

Window = tuple[Optional[int], Optional[int]]
AnyBlockMask = Union[BlockMask, TorchBlockMask]


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[float] = None, causal: bool = False,
    window_size: Window = (None, None), learnable_sink: Optional[Tensor] = None, softcap: float = 0.0,
    num_splits: int = 1, pack_gqa: Optional[bool] = None, deterministic: bool = False, mask_mod: Mod = None,
    full_block_cnt: Optional[Tensor] = None, full_block_idx: Optional[Tensor] = None,
    mask_block_cnt: Optional[Tensor] = None, mask_block_idx: Optional[Tensor] = None,
    block_size: Optional[tuple[int, int]] = None, return_lse: bool = False, *, score_mod: Mod = None,
    block_mask: Optional[AnyBlockMask] = None, alibi_slopes: Optional[Tensor] = None, backend: Optional[str] = None,
):  # fmt: skip
    """q (B, Nq, H, D), k (B, Nk, Hkv, D), v (B, Nk, Hkv, Dv) -> out (B, Nq, H, Dv), and lse (B, H, Nq) on request.

    causal and window_size (left, right; None or -1: unbounded) are aligned to the bottom right corner, as
    FlashAttention's are: the last query sees up to the last key. score_mod and mask_mod are FlexAttention's Python
    functions, or C text (saccade.score_mod, saccade.mask_mod). The blocks to visit come as a block_mask, or as
    FlashAttention's own four tensors with their block_size.
    """
    _refuse(num_splits, pack_gqa, alibi_slopes)
    if mask_block_cnt is not None or full_block_cnt is not None:
        if mask_block_cnt is None or block_size is None or block_mask is not None:
            raise ValueError("full_block_cnt: needs mask_block_cnt and block_size beside it, and no block_mask")
        lists = (mask_block_cnt, mask_block_idx, full_block_cnt, full_block_idx)
        block_mask = from_torch_lists(lists, q.shape[1], k.shape[1], block_size)
    out, lse = attend(
        q, k, v, scale=softmax_scale, causal=_causal(causal), window=_window(window_size), sink=_sink(learnable_sink),
        softcap=softcap, deterministic=deterministic, score_mod=score_mod, mask_mod=mask_mod, block_mask=block_mask,
        backend=backend, with_lse=return_lse, alibi_slopes=alibi_slopes)  # fmt: skip
    return (out, lse) if return_lse else out


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor] = None, cu_seqlens_k: Optional[Tensor] = None,
    max_seqlen_q: Optional[int] = None, max_seqlen_k: Optional[int] = None, seqused_q: Optional[Tensor] = None,
    seqused_k: Optional[Tensor] = None, page_table: Optional[Tensor] = None, softmax_scale: Optional[float] = None,
    causal: bool = False, window_size: Window = (None, None), learnable_sink: Optional[Tensor] = None,
    softcap: float = 0.0, num_splits: int = 1, pack_gqa: Optional[bool] = None, deterministic: bool = False,
    score_mod: Mod = None, mask_mod: Mod = None, *, return_lse: bool = False, block_mask: Optional[AnyBlockMask] = None,
    alibi_slopes: Optional[Tensor] = None, backend: Optional[str] = None,
):  # fmt: skip
    """The same over packed sequences: q (Tq, H, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv), lse (H, Tq).

    cu_seqlens_* (B + 1,) int32 say where each sequence begins; seqused_* (B,) int32 how much of it is used. On CUDA
    max_seqlen_* are needed, since lengths are never read back.
    """
    _refuse(num_splits, pack_gqa, alibi_slopes)
    if page_table is not None:
        raise NotImplementedError("page_table: keys and values in pages are not served")
    for name, cu_seqlens in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        if cu_seqlens is None:
            raise ValueError(f"{name}: is missing; without it flash_attn_func takes sequences of one length")
    out, lse = attend(
        q, k, v, scale=softmax_scale, causal=_causal(causal), window=_window(window_size), sink=_sink(learnable_sink),
        softcap=softcap, deterministic=deterministic, score_mod=score_mod, mask_mod=mask_mod, block_mask=block_mask,
        backend=backend, with_lse=return_lse, max_seqlens=(max_seqlen_q or 0, max_seqlen_k or 0),
        alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
        seqused_k=seqused_k)  # fmt: skip
    return (out, lse) if return_lse else out


def _refuse(num_splits: int, pack_gqa: Optional[bool], alibi_slopes: Optional[Tensor]) -> None:
    if num_splits != 1 or pack_gqa is not None:
        raise NotImplementedError(
            f"num_splits: {num_splits}, pack_gqa: {pack_gqa}, but how work is split is the library's choice: 1, None")
    if alibi_slopes is not None and alibi_slopes.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("alibi_slopes: have no gradient here; detach them, or capture them in a score_mod")


def _causal(causal: bool) -> Optional[str]:
    if causal not in (False, True):
        raise ValueError(f"causal: {causal!r} is neither True nor False; True is aligned to the bottom right")
    return "bottom_right" if causal else None


def _window(window_size: Window) -> Optional[tuple[int, int]]:
    if window_size == (None, None):
        return None
    if not isinstance(window_size, (tuple, list)) or len(window_size) != 2:
        raise ValueError(f"window_size: {window_size!r} is no pair (left, right)")
    left, right = (-1 if side is None else side for side in window_size)
    return None if (left, right) == (-1, -1) else (left, right)


def _sink(sink: Optional[Tensor]) -> Optional[Tensor]:
    """FlashAttention's sinks are bf16, the library's fp32."""
    return None if sink is None else sink.float()
