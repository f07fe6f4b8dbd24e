"""The one way from this package's functions to the operator."""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping, Optional, Union

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask
from ._checks import check_inputs
from ._device import autocast, autocast_anywhere
from ._masks import import_lists, torch_lists
from ._modifiers import NOTHING, Mod, bound
from ._ops import attention
from ._spec import Spec

NO_TENSORS: dict[str, Optional[Tensor]] = {}


def options(make: Callable[..., Spec]) -> Callable[..., Spec]:
    """A function from a call's options to its Spec: it checks them, once for equal ones. Honours
    torch.use_deterministic_algorithms like deterministic=True."""
    known = functools.lru_cache(maxsize=256)(make)

    @functools.wraps(make)
    def spec_of(deterministic: bool, *values: Any) -> Spec:
        deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
        if is_compiling():  # which knows no caches, and holds numbers as symbols
            return make(deterministic, *values)
        try:
            return known(deterministic, *values)
        except TypeError:  # perhaps only of a list, which no cache can hold
            pass
        return make(deterministic, *values)

    return spec_of


def attend(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, with_lse: bool, *, sink: Optional[Tensor] = None,
    score_mod: Mod = None, mask_mod: Mod = None, block_mask: Union[BlockMask, TorchBlockMask, None] = None,
    max_seqlens: tuple[int, int] = (0, 0), tensors: Mapping[str, Optional[Tensor]] = NO_TENSORS,
) -> tuple[Tensor, Optional[Tensor]]:  # fmt: skip
    """out and, if wanted, lse of q (B, Nq, H, D), k, v; or, heads_first, (B, H, Nq, D); or of packed ones. spec has the
    constants of the call but those of its tensors, which have AttentionOptions' names. A mask_mod goes before that of a
    PyTorch block mask.

    Honours torch.autocast.
    """
    rank = 3 if "cu_seqlens_q" in tensors else 4
    if not (type(q) is type(k) is type(v) is Tensor and q.dim() == k.dim() == v.dim() == rank):
        check_inputs(q, k, v, rank == 3, spec.options.heads_first)
    if autocast_anywhere():
        q, k, v = autocast(q, k, v)
    if score_mod is None and mask_mod is None and block_mask is None and not tensors:
        return attention(q, k, v, sink, (), (), spec, max_seqlens, None, with_lse)
    others = {name: _tensor(name, tensor) for name, tensor in tensors.items() if tensor is not None} if tensors else {}
    lists: list[Tensor] = []
    list_blocks = None
    if block_mask is not None and not isinstance(block_mask, BlockMask):
        mask_mod, block_mask, lists, list_blocks = _of_torchs(block_mask, mask_mod)
    score, hidden = NOTHING, NOTHING
    if score_mod is not None:
        score = bound("score", score_mod, q.device)
    if mask_mod is not None:
        hidden = bound("mask", mask_mod, q.device)
        for name, tensor in zip(hidden.program.aux, hidden.aux):
            others[f"mask_aux.{name}"] = tensor
    num_tensors = len(others)
    if score.scalars is not None:
        others["score_scalars"] = score.scalars
    if hidden.scalars is not None:
        others["mask_scalars"] = hidden.scalars
    num_scalars = len(others) - num_tensors
    spec = Spec(spec.options, score.program, hidden.program, tuple(others), num_scalars, list_blocks)
    return attention(q, k, v, sink, score.aux, [*others.values(), *lists], spec, max_seqlens, block_mask, with_lse)


def _of_torchs(
    block_mask: TorchBlockMask, mask_mod: Mod
) -> tuple[Mod, Optional[BlockMask], list[Tensor], Optional[tuple[int, int]]]:
    """What PyTorch's block mask comes to: a mask_mod, and either our block mask or its lists and their block size."""
    lists, (q_block, kv_block) = torch_lists(block_mask), block_mask.BLOCK_SIZE
    if not lists:
        return mask_mod, None, [], None
    mask_mod = mask_mod or block_mask.mask_mod
    if is_compiling():  # nothing is there to import yet: the operator does it
        return mask_mod, None, lists, (q_block, kv_block)
    return mask_mod, import_lists(lists, *block_mask.seq_lengths, (q_block, kv_block)), [], None


def _tensor(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: a torch.Tensor is needed, not {type(tensor).__name__}")
    return tensor
