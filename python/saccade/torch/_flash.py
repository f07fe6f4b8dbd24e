"""FlashAttention-4's functions, by their names, shapes and defaults."""

from __future__ import annotations

from typing import Optional

from torch import Tensor

from ..block_mask import BlockMask
from ..modifier import Modifier
from ._attend import attend


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[float] = None, causal: bool = False,
    window_size: tuple[Optional[int], Optional[int]] = (None, None), learnable_sink: Optional[Tensor] = None,
    softcap: float = 0.0, deterministic: bool = False, score_mod: Optional[Modifier] = None,
    mask_mod: Optional[Modifier] = None, block_mask: Optional[BlockMask] = None,
    alibi_slopes: Optional[Tensor] = None, return_lse: bool = False, backend: Optional[str] = None,
):  # fmt: skip
    """q (B, Nq, H, D), k (B, Nk, Hkv, D), v (B, Nk, Hkv, Dv) -> out (B, Nq, H, Dv), and lse (B, H, Nq) on request.

    causal and window_size (left, right; None or -1: unbounded) are aligned to the bottom right corner, as
    FlashAttention's are: the last query sees up to the last key.
    """
    out, lse = attend(
        q, k, v, scale=softmax_scale, causal=_causal(causal), window=_window(window_size), sink=learnable_sink,
        softcap=softcap, deterministic=deterministic, score_mod=score_mod, mask_mod=mask_mod, block_mask=block_mask,
        backend=backend, with_lse=return_lse, alibi_slopes=alibi_slopes)  # fmt: skip
    return (out, lse) if return_lse else out


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor] = None, cu_seqlens_k: Optional[Tensor] = None,
    max_seqlen_q: Optional[int] = None, max_seqlen_k: Optional[int] = None, seqused_q: Optional[Tensor] = None,
    seqused_k: Optional[Tensor] = None, softmax_scale: Optional[float] = None, causal: bool = False,
    window_size: tuple[Optional[int], Optional[int]] = (None, None), learnable_sink: Optional[Tensor] = None,
    softcap: float = 0.0, deterministic: bool = False, score_mod: Optional[Modifier] = None,
    mask_mod: Optional[Modifier] = None, block_mask: Optional[BlockMask] = None,
    alibi_slopes: Optional[Tensor] = None, return_lse: bool = False, backend: Optional[str] = None,
):  # fmt: skip
    """The same over packed sequences: q (Tq, H, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv), lse (H, Tq).

    cu_seqlens_* (B + 1,) int32 say where each sequence begins; seqused_* (B,) int32 how much of it is used. On CUDA
    max_seqlen_* are needed, since lengths are never read back.
    """
    out, lse = attend(
        q, k, v, scale=softmax_scale, causal=_causal(causal), window=_window(window_size), sink=learnable_sink,
        softcap=softcap, deterministic=deterministic, score_mod=score_mod, mask_mod=mask_mod, block_mask=block_mask,
        backend=backend, with_lse=return_lse, max_seqlens=(max_seqlen_q or 0, max_seqlen_k or 0),
        alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, seqused_q=seqused_q,
        seqused_k=seqused_k)  # fmt: skip
    return (out, lse) if return_lse else out


def _causal(causal: bool) -> Optional[str]:
    return "bottom_right" if causal else None


def _window(window_size) -> Optional[tuple[int, int]]:
    left, right = (-1 if side is None else side for side in window_size)
    return None if (left, right) == (-1, -1) else (left, right)
