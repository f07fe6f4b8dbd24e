"""FlexAttention's functions: they take its own Python score_mods, mask_mods and BlockMasks as they are."""

from __future__ import annotations

from typing import Any, Callable, Optional, Union, cast

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torchs
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask, BlockSize
from ..modifier import Modifier
from ._attend import attend, options
from ._checks import check_inputs, check_numbers
from ._device import Device, device_of
from ._masks import LISTS, build_from_mod, new_lists
from ._modifiers import Mod, as_modifier, bound
from ._ops import block_mask_lists
from ._spec import Options, Spec, spec_text


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Mod = None,
    block_mask: Union[BlockMask, TorchBlockMask, None] = None, scale: Optional[float] = None, enable_gqa: bool = False,
    return_lse: bool = False, kernel_options: Optional[dict[str, Any]] = None, *, return_aux: Any = None,
    backend: Optional[str] = None,
) -> Union[Tensor, tuple[Tensor, Any]]:  # fmt: skip
    """query (B, H, Nq, D), key (B, Hkv, Nk, D), value (B, Hkv, Nk, Dv) -> (B, H, Nq, Dv), and lse (B, H, Nq). A key and
    value of batch 1 serve every batch entry.

    score_mod(score, b, h, q_idx, kv_idx) is a Python function, traced into C (or a saccade.score_mod). Tensors that
    it captures get gradients when they ask for them. return_aux is PyTorch's AuxRequest, of which lse can be had: fp32,
    in natural logarithms. scale None: 1 / sqrt(D). backend: one by name (saccade.backends()). A row that sees no key
    gives 0, with lse -inf.

    Raises ValueError or TypeError for a wrong argument, NotImplementedError, with the reason, for what is not served,
    and for what a function does that a modifier cannot. Semantics: FlexAttention, arXiv 2412.05496; saccade/modifier.h.
    """
    if kernel_options:
        raise NotImplementedError(f"kernel_options: {kernel_options}, but tiles are the library's choice: None")
    if return_aux is not None and not hasattr(return_aux, "max_scores"):
        raise TypeError(f"return_aux: PyTorch's AuxRequest is needed, not {type(return_aux).__name__}")
    if return_aux is not None and return_aux.max_scores:
        raise NotImplementedError("return_aux: max_scores are not kept, only lse")
    if return_aux is not None and return_lse:
        raise ValueError("return_lse: asks for what return_aux asks for, give one of them")
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        check_inputs(query, key, value, packed=False, heads_first=True)
    of_query, of_key = query.shape, key.shape
    if of_query != of_key and len(of_query) == len(of_key) == 4:
        if of_query[1] != of_key[1] and not enable_gqa:
            raise ValueError(f"query has {of_query[1]} heads and key {of_key[1]}: say enable_gqa=True to share heads")
        if of_query[0] != of_key[0] == 1 == value.shape[0]:
            key, value = (t.expand(of_query[0], -1, -1, -1) for t in (key, value))
    with_lse = return_lse or return_aux is not None and return_aux.lse
    spec = _spec(False, scale, backend)
    out, lse = attend(query, key, value, spec, with_lse, block_mask=block_mask, score_mod=score_mod)
    if return_aux is not None:
        return out, torchs.AuxOutput(lse=lse)
    return (out, lse) if return_lse else out


@options
def _spec(deterministic: bool, scale: Optional[float], backend: Optional[str]) -> Spec:
    check_numbers(scale=scale)
    return Spec(Options(scale, deterministic=deterministic, backend=backend, heads_first=True))


def create_block_mask(
    mask_mod: Union[Callable[..., Tensor], Modifier, str], B: Optional[int], H: Optional[int], Q_LEN: int, KV_LEN: int,
    device: Device = None,
    BLOCK_SIZE: Union[int, tuple[int, int]] = 128, _compile: bool = False, *, capacity: int = 0,
) -> BlockMask:  # fmt: skip
    """Classifies every block by evaluating the traced mask_mod on `device`; no dense grid is made. B or H None:
    broadcasts. device None: the GPU where there is one, as in PyTorch. _compile is PyTorch's and changes nothing here.

    Inside torch.compile the result is PyTorch's BlockMask, which has the same methods and serves the same calls; a
    mask_mod is a Python function there.

    On CUDA nothing is copied to or from the host. Lists take memory for every block there is, or for `capacity` blocks
    where that is given; then the call waits for the device, to say when it was too few.
    """
    batch, heads = (1 if n is None else n for n in (B, H))
    device = device_of(device)
    if torch.compiler.is_compiling():
        return cast(BlockMask, _compiled_block_mask(
            mask_mod, (batch, heads, Q_LEN, KV_LEN), device, BLOCK_SIZE, capacity))  # fmt: skip
    modifier = as_modifier("mask", mask_mod, device)
    mask = build_from_mod(modifier, Q_LEN, KV_LEN, batch, heads, BLOCK_SIZE, device, capacity)
    mask.mask_mod = mask_mod if callable(mask_mod) else None
    return mask


def _compiled_block_mask(
    mask_mod: Any, shape: tuple[int, int, int, int], device: torch.device, block_size: BlockSize, capacity: int,
) -> TorchBlockMask:  # fmt: skip
    """A graph holds tensors, not our masks: the same as PyTorch's lists."""
    traced = bound("mask", mask_mod, device)
    pair = (block_size, block_size) if isinstance(block_size, int) else block_size
    spec = spec_text(Spec(Options(), mask=traced.program))
    lists = block_mask_lists(traced.aux, traced.scalars, spec, shape, pair, device, capacity)
    return _torch_block_mask(shape[2:], lists, pair, mask_mod)


def to_torch_block_mask(
    mask: BlockMask, mask_mod: Optional[Callable[..., Tensor]] = None, device: Device = None
) -> TorchBlockMask:
    """The mask as PyTorch's BlockMask. mask_mod is the Python function that decides its PARTIAL blocks: None where
    create_block_mask or eagle3_block_mask made the mask, which know it. device: None leaves it where the mask lies."""
    if not isinstance(mask, BlockMask):
        found = f"{type(mask).__name__} of {type(mask).__module__}"
        raise TypeError(f"mask: a BlockMask of saccade is needed, not a {found}")
    info = mask.info
    mask_mod = mask_mod or mask.mask_mod
    if mask_mod is None and info.partial + info.diagonal:
        raise ValueError(f"mask_mod: is needed to decide {info.partial + info.diagonal} blocks that are not FULL")
    lists = new_lists(info.batch, info.num_heads, (info.num_q_blocks, info.num_kv_blocks), torch.device(mask.device))
    mask.export(dict(zip(LISTS, lists)))
    lists = [t.to(device or mask.device) for t in lists]
    return _torch_block_mask((info.q_len, info.kv_len), lists, info.block_size, mask_mod or _always)


def _torch_block_mask(
    lengths: tuple[int, int], lists: list[Tensor], block_size: tuple[int, int], mask_mod: Callable[..., Tensor]
) -> TorchBlockMask:
    return TorchBlockMask(seq_lengths=lengths, BLOCK_SIZE=block_size, mask_mod=mask_mod, **dict(zip(LISTS, lists)))


def _always(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return q_idx >= 0
