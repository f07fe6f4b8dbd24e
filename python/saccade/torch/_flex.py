"""FlexAttention's functions: they take its own Python score_mods, mask_mods and BlockMasks as they are."""

from __future__ import annotations

import weakref
from typing import Callable, Optional, Union

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from ..block_mask import BlockMask
from ._attend import attend
from ._masks import build_from_mod, from_torch_lists
from ._modifiers import as_modifier

_LISTS = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
          "q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")  # fmt: skip


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Optional[Callable] = None,
    block_mask: Union[BlockMask, TorchBlockMask, None] = None, scale: Optional[float] = None, enable_gqa: bool = False,
    return_lse: bool = False, backend: Optional[str] = None,
):  # fmt: skip
    """query (B, H, Nq, D), key (B, Hkv, Nk, D), value (B, Hkv, Nk, Dv) -> (B, H, Nq, Dv), and lse (B, H, Nq).

    score_mod(score, b, h, q_idx, kv_idx) is a Python function, traced into C (or a saccade.score_mod). Tensors that
    it captures get gradients when they ask for them.
    """
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(f"query has {query.shape[1]} heads and key {key.shape[1]}: say enable_gqa=True to share heads")
    mask, mask_mod = _as_mask(block_mask)
    out, lse = attend(
        query, key, value, scale=scale, block_mask=mask, mask_mod=mask_mod, score_mod=score_mod, backend=backend,
        with_lse=return_lse, heads_first=True)  # fmt: skip
    return (out, lse) if return_lse else out


def create_block_mask(
    mask_mod: Callable, B: Optional[int], H: Optional[int], Q_LEN: int, KV_LEN: int, device="cpu",
    BLOCK_SIZE: Union[int, tuple[int, int]] = 128, *, capacity: int = 0,
) -> BlockMask:  # fmt: skip
    """Classifies every block by evaluating the traced mask_mod on `device`; no dense grid is made. None broadcasts.

    On CUDA nothing is copied to or from the host. Lists take memory for every block there is, or for `capacity` blocks
    where that is given; then the call waits for the device, to say when it was too few.
    """
    block_size = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else tuple(BLOCK_SIZE)
    modifier = as_modifier("mask", mask_mod, torch.device(device))
    return build_from_mod(modifier, Q_LEN, KV_LEN, B or 1, H or 1, block_size, torch.device(device), capacity)


def to_torch_block_mask(mask: BlockMask, mask_mod: Optional[Callable] = None, device=None) -> TorchBlockMask:
    """The mask as PyTorch's BlockMask; mask_mod is the Python function that decides its PARTIAL blocks. device: None
    leaves it where the mask lies."""
    info = mask.info
    tensors = {}
    blocks = info.num_q_blocks, info.num_kv_blocks
    for side, rows, columns in (("kv", *blocks), ("q", *reversed(blocks))):
        for prefix in ("", "full_"):
            shape = (info.batch, info.num_heads, rows)
            tensors[f"{prefix}{side}_num_blocks"] = torch.empty(shape, dtype=torch.int32, device=mask.device)
            tensors[f"{prefix}{side}_indices"] = torch.empty((*shape, columns), dtype=torch.int32, device=mask.device)
    mask.export(tensors)
    return TorchBlockMask(
        seq_lengths=(info.q_len, info.kv_len), BLOCK_SIZE=info.block_size, mask_mod=mask_mod or _always,
        **{name: tensors[name].to(device or mask.device) for name in _LISTS})  # fmt: skip


def _always(b, h, q_idx, kv_idx):
    return q_idx >= 0


_imported: "weakref.WeakKeyDictionary[TorchBlockMask, tuple[list, list, BlockMask]]" = weakref.WeakKeyDictionary()


def _import(block_mask: TorchBlockMask) -> BlockMask:
    """Ours of PyTorch's lists, made once for as long as they stay the same."""
    lists = [getattr(block_mask, name) for name in _LISTS[:4]]
    state = [None if t is None else (id(t), _version(t)) for t in lists]
    known_state, _, mask = _imported.get(block_mask, (None, None, None))
    if state != known_state:
        mask = from_torch_lists(lists, *block_mask.seq_lengths, tuple(block_mask.BLOCK_SIZE))
        _imported[block_mask] = state, lists, mask  # the lists are kept, so that nobody else gets their ids
    return mask


def _version(tensor: Tensor):
    """Changes when the tensor is written to; torch does not count that of inference tensors."""
    return object() if tensor.is_inference() else tensor._version


def _as_mask(block_mask) -> tuple[Optional[BlockMask], Optional[Callable]]:
    """A block mask of ours, and the mask_mod that decides its PARTIAL blocks unless it carries its own."""
    if block_mask is None or isinstance(block_mask, BlockMask):
        return block_mask, None
    return _import(block_mask), block_mask.mask_mod
