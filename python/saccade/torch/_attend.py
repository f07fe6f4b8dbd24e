"""The one way from this package's functions to the operator."""

from __future__ import annotations

import functools
from typing import Optional, Union

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask
from ._checks import check_inputs
from ._device import autocast
from ._masks import import_lists, torch_lists
from ._modifiers import NOTHING, Mod, bound
from ._ops import attention
from ._spec import Spec


def options(make):
    """A function from a call's options to its Spec: it checks them, once for equal ones. Honours
    torch.use_deterministic_algorithms like deterministic=True."""
    known = functools.lru_cache(maxsize=256)(make)

    @functools.wraps(make)
    def spec_of(deterministic: bool, *values) -> Spec:
        deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
        if torch.compiler.is_compiling():  # which knows no caches, and holds numbers as symbols
            return make(deterministic, *values)
        try:
            return known(deterministic, *values)
        except TypeError:  # perhaps only of a list, which no cache can hold
            pass
        return make(deterministic, *values)

    return spec_of


_autocast_anywhere = torch._C._is_any_autocast_enabled


def _tensor(name: str, tensor: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: a torch.Tensor is needed, not {type(tensor).__name__}")
    return tensor


def attend(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, with_lse: bool, *, sink: Optional[Tensor] = None,
    score_mod: Mod = None, mask_mod: Mod = None, block_mask: Union[BlockMask, TorchBlockMask, None] = None,
    max_seqlens: tuple[int, int] = (0, 0), **tensors: Optional[Tensor],
) -> tuple[Tensor, Optional[Tensor]]:  # fmt: skip
    """out and, if wanted, lse of q (B, Nq, H, D), k, v; or, heads_first, (B, H, Nq, D); or of packed ones. spec has the
    constants of the call but those of its tensors. A mask_mod goes before that of a PyTorch block mask.

    Honours torch.autocast.
    """
    rank = 3 if "cu_seqlens_q" in tensors else 4
    if not (type(q) is type(k) is type(v) is Tensor and q.dim() == k.dim() == v.dim() == rank):
        check_inputs(q, k, v, rank == 3, spec.options.heads_first)
    if _autocast_anywhere():
        q, k, v = autocast(q, k, v)
    if score_mod is None and mask_mod is None and block_mask is None and not tensors:
        return attention(q, k, v, sink, [], [], spec, max_seqlens, None, with_lse)
    others = {name: _tensor(name, tensor) for name, tensor in tensors.items() if tensor is not None} if tensors else {}
    lists, list_blocks = [], ()
    if block_mask is not None and not isinstance(block_mask, BlockMask):
        lists, list_blocks = torch_lists(block_mask), tuple(block_mask.BLOCK_SIZE)
        if lists:
            mask_mod = mask_mod or block_mask.mask_mod
        # While torch.compile looks there is nothing to import: the operator does it.
        if not lists or not torch.compiler.is_compiling():
            block_mask = import_lists(lists, *block_mask.seq_lengths, list_blocks) if lists else None
            lists, list_blocks = [], ()
    score = NOTHING if score_mod is None else bound("score", score_mod, q.device)
    mask = NOTHING if mask_mod is None else bound("mask", mask_mod, q.device)
    for name, tensor in zip(mask.program.aux, mask.aux):
        others[f"mask_aux.{name}"] = tensor
    num_tensors = len(others)
    if score.scalars is not None:
        others["score_scalars"] = score.scalars
    if mask.scalars is not None:
        others["mask_scalars"] = mask.scalars
    num_scalars = len(others) - num_tensors
    spec = Spec(spec.options, score.program, mask.program, tuple(others), num_scalars, list_blocks)
    others = [*others.values(), *lists]
    return attention(q, k, v, sink, score.aux, others, spec, max_seqlens, None if lists else block_mask, with_lse)
