"""FlashAttention-4's functions, by their names, shapes and defaults."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask
from ..modifier import Modifier
from ._attend import NO_TENSORS, attend, options
from ._checks import check_numbers
from ._masks import from_torch_lists
from ._modifiers import Mod
from ._spec import Options, Spec

Window = tuple[Optional[int], Optional[int]]
AnyBlockMask = Union[BlockMask, TorchBlockMask]


class BlockSparseTensors(NamedTuple):
    """FlashAttention-4's lists: counts (B, H, query blocks) and indices (B, H, query blocks, at most that many)."""

    mask_block_cnt: Tensor
    mask_block_idx: Tensor
    full_block_cnt: Optional[Tensor] = None
    full_block_idx: Optional[Tensor] = None
    block_size: Optional[tuple[int, int]] = None


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[float] = None, causal: bool = False,
    window_size: Window = (None, None), learnable_sink: Optional[Tensor] = None, softcap: float = 0.0,
    num_splits: int = 1, pack_gqa: Optional[bool] = None, deterministic: bool = False, *, score_mod: Mod = None,
    mask_mod: Mod = None, aux_tensors: Optional[Sequence[Tensor]] = None,
    block_sparse_tensors: Optional[BlockSparseTensors] = None, return_lse: bool = False,
    block_mask: Optional[AnyBlockMask] = None, alibi_slopes: Optional[Tensor] = None, backend: Optional[str] = None,
    **not_served: Any,
) -> Union[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
    """q (B, Nq, H, D), k (B, Nk, Hkv, D), v (B, Nk, Hkv, Dv) -> out (B, Nq, H, Dv), and lse (B, H, Nq) on request:
    fp32, the natural logarithm of each row's sum of exponentials. fp32, fp16 or bf16; D and Dv multiples of 8 up to
    256. A row that sees no key gives out 0, lse -inf and no gradient.

    softmax_scale None: 1 / sqrt(D). softcap c > 0: scores become c tanh(score / c). learnable_sink (H,): a score that
    joins each row's sum and has no value, with gradient. alibi_slopes (H,) or (B, H) fp32: score -= slope * |i + Nk -
    Nq - j|. deterministic: gradients are the same bits every time. backend: one by name (saccade.backends()).
    causal and window_size (left, right; None or -1: unbounded) are aligned to the bottom right corner, as
    FlashAttention's are: the last query sees up to the last key. score_mod and mask_mod are FlexAttention's Python
    functions, or C text (saccade.score_mod, saccade.mask_mod); with aux_tensors they get these as one argument more.
    The blocks to visit come as a block_mask, or as FlashAttention's block_sparse_tensors.

    Raises ValueError or TypeError for a wrong argument, NotImplementedError, with the reason, for what is not served.
    Rules and formulas: saccade/attention.h.
    """
    if not_served or num_splits != 1 or pack_gqa is not None:
        _refuse(num_splits, pack_gqa, not_served)
    if aux_tensors is not None:
        score_mod, mask_mod = _with_aux(score_mod, mask_mod, aux_tensors)
    if block_sparse_tensors is not None:
        block_mask = _block_mask(block_sparse_tensors, q, k, block_mask)
    spec = _spec(deterministic, softmax_scale, causal, window_size, softcap, backend)
    tensors = NO_TENSORS if alibi_slopes is None else {"alibi_slopes": _slopes(alibi_slopes)}
    out, lse = attend(
        q, k, v, spec, return_lse, sink=_sink(learnable_sink), score_mod=score_mod, mask_mod=mask_mod,
        block_mask=block_mask, tensors=tensors)  # fmt: skip
    return out if lse is None else (out, lse)


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Optional[Tensor] = None, cu_seqlens_k: Optional[Tensor] = None,
    max_seqlen_q: Optional[int] = None, max_seqlen_k: Optional[int] = None, seqused_q: Optional[Tensor] = None,
    seqused_k: Optional[Tensor] = None, softmax_scale: Optional[float] = None, causal: bool = False,
    window_size: Window = (None, None), learnable_sink: Optional[Tensor] = None, softcap: float = 0.0,
    num_splits: int = 1, pack_gqa: Optional[bool] = None, deterministic: bool = False, *, score_mod: Mod = None,
    mask_mod: Mod = None, aux_tensors: Optional[Sequence[Tensor]] = None, return_lse: bool = False,
    block_mask: Optional[AnyBlockMask] = None, alibi_slopes: Optional[Tensor] = None, backend: Optional[str] = None,
    **not_served: Any,
) -> Union[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
    """The same over packed sequences: q (Tq, H, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv), lse (H, Tq).

    cu_seqlens_* (B + 1,) int32 say where each sequence begins; seqused_* (B,) int32 how much of it is used. On CUDA
    max_seqlen_* are needed, since lengths are never read back. Without its cu_seqlens a side is a batch of sequences
    of one length, as flash_attn_func takes it.
    """
    _refuse(num_splits, pack_gqa, not_served)
    check_numbers(max_seqlen_q=max_seqlen_q, max_seqlen_k=max_seqlen_k)
    if aux_tensors is not None:
        score_mod, mask_mod = _with_aux(score_mod, mask_mod, aux_tensors)
    batch_of_q, max_seqlens = None, (0, 0)
    tensors = {"alibi_slopes": _slopes(alibi_slopes), "seqused_q": seqused_q, "seqused_k": seqused_k}
    if cu_seqlens_q is not None or cu_seqlens_k is not None:
        if cu_seqlens_q is None:
            batch_of_q = q.shape[:2]
            max_seqlen_q, cu_seqlens_q, q = _packed(("cu_seqlens_q", "q"), q)
        if cu_seqlens_k is None:
            max_seqlen_k, cu_seqlens_k, k, v = _packed(("cu_seqlens_k", "k", "v"), k, v)
        tensors.update(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
        max_seqlens = max_seqlen_q or 0, max_seqlen_k or 0
    spec = _spec(deterministic, softmax_scale, causal, window_size, softcap, backend)
    out, lse = attend(
        q, k, v, spec, return_lse, sink=_sink(learnable_sink), score_mod=score_mod, mask_mod=mask_mod,
        block_mask=block_mask, tensors=tensors, max_seqlens=max_seqlens)  # fmt: skip
    if batch_of_q:
        batch, length = batch_of_q
        out = out.view(batch, length, *out.shape[1:])
        lse = None if lse is None else lse.view(-1, batch, length).transpose(0, 1)
    return out if lse is None else (out, lse)


def _packed(names: Sequence[str], *tensors: Tensor) -> tuple[Any, ...]:
    """Sequences of one length, (B, N, ...), as packed ones: that length, cu_seqlens, and each tensor as (B N, ...)."""
    for name, tensor in zip(names[1:], tensors):
        if tensor.dim() != 4:
            raise ValueError(f"{names[0]}: is missing, but {name} has shape {tuple(tensor.shape)}; without it "
                             "(B, N, H, D) is expected")
    batch, length = tensors[0].shape[:2]
    starts = torch.arange(batch + 1, dtype=torch.int32, device=tensors[0].device) * length
    return length, starts, *(tensor.flatten(0, 1) for tensor in tensors)


_SPLIT = "how work is split is the library's choice"
_NOT_SERVED = {
    "aux_scalars": "capture numbers in the function",
    "block_sparse_tensors": "lists of packed sequences are not served; give a block_mask",
    "block_sparse_tensors_bwd": "the lists of the backward pass are derived from the others",
    "disable_scheduler_metadata": _SPLIT,
    "dropout_p": "there is no dropout",
    "gather_bwd_recompute_p": "keys are not gathered",
    "gather_bwd_token_chunk": "keys are not gathered",
    "gather_kv_indices": "keys are not gathered; a block_mask lists blocks of them",
    "min_seqlen_k": _SPLIT,
    "page_table": "keys and values in pages are not served",
    "qv": "scores of a second pair of tensors are not served",
    "return_attn_probs": "probabilities are never stored; return_lse gives what they are made from",
    "scheduler_metadata": _SPLIT,
    "score_mod_bwd": "the gradient is derived from a Python score_mod, and part of a saccade.score_mod",
    "seqlen_k_per_split": _SPLIT,
}


def _refuse(num_splits: int, pack_gqa: Optional[bool], others: dict[str, Any]) -> None:
    """Options of FlashAttention's that would change the result or that it alone needs, unless they are off."""
    for name, value in others.items():
        if name not in _NOT_SERVED:
            raise TypeError(f"{name}: is no option of FlashAttention's or ours")
        off = value is None or isinstance(value, (bool, int, float)) and not value
        if not off:
            raise NotImplementedError(f"{name}: {_NOT_SERVED[name]}")
    if num_splits not in (0, 1) or pack_gqa is not None:  # 0: FlashAttention's own choice
        raise NotImplementedError(f"num_splits: {num_splits}, pack_gqa: {pack_gqa}, but {_SPLIT}: 0 or 1, None")


@options
def _spec(deterministic: bool, scale: Optional[float], causal: bool, window_size: Window, softcap: Optional[float],
          backend: Optional[str]) -> Spec:
    check_numbers(softmax_scale=scale, softcap=softcap)
    if scale is not None and scale == 0:
        raise ValueError("softmax_scale: is 0, all keys would weigh the same (FlashAttention-2 has dropout_p here)")
    if causal not in (False, True):
        raise ValueError(f"causal: {causal!r} is neither True nor False; True is aligned to the bottom right")
    aligned = "bottom_right" if causal else None
    return Spec(Options(scale, aligned, _window(window_size), softcap or 0.0, deterministic, backend))


def _window(window_size: Window) -> Optional[tuple[int, int]]:
    if window_size == (None, None):
        return None
    if not isinstance(window_size, (tuple, list)) or len(window_size) != 2:
        raise ValueError(f"window_size: {window_size!r} is no pair (left, right)")
    left, right = (-1 if side is None else side for side in window_size)
    check_numbers(window_size=left)
    check_numbers(window_size=right)
    return None if (left, right) == (-1, -1) else (left, right)


def _slopes(slopes: Optional[Tensor]) -> Optional[Tensor]:
    if isinstance(slopes, Tensor) and slopes.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("alibi_slopes: have no gradient here; detach them, or capture them in a score_mod")
    return slopes


def _sink(sink: Optional[Tensor]) -> Optional[Tensor]:
    """FlashAttention's sinks are bf16, the library's fp32."""
    if sink is not None and not isinstance(sink, Tensor):
        raise TypeError(f"learnable_sink: a torch.Tensor is needed, not {type(sink).__name__}")
    return None if sink is None else sink.float()


def _with_aux(score_mod: Mod, mask_mod: Mod, aux_tensors: Sequence[Tensor]) -> tuple[Mod, Mod]:
    """The functions with the tensors that they get, as if they captured them."""
    if score_mod is None and mask_mod is None:
        raise ValueError("aux_tensors: are given, but neither a score_mod nor a mask_mod that gets them")
    tensors = tuple(aux_tensors)

    def with_tensors(mod: Mod) -> Mod:
        if mod is None:
            return None
        if isinstance(mod, (Modifier, str)):
            raise ValueError("aux_tensors: are for Python functions; a text has its arrays by name (saccade.score_mod)")
        return lambda *args: mod(*args, tensors)

    return with_tensors(score_mod), with_tensors(mask_mod)


def _block_mask(lists: BlockSparseTensors, q: Tensor, k: Tensor, other: Optional[AnyBlockMask]) -> BlockMask:
    block_size = getattr(lists, "block_size", None)
    if other is not None or block_size is None:
        raise ValueError("block_sparse_tensors: need their block_size, and no block_mask beside them")
    if any(getattr(lists, name, None) is not None for name in ("cu_total_m_blocks", "cu_block_idx_offsets")):
        raise NotImplementedError(f"block_sparse_tensors: {_NOT_SERVED['block_sparse_tensors']}")
    return from_torch_lists(lists[:4], q.shape[1], k.shape[1], block_size)
