"""Block masks built where their tensors lie, and exchanged with PyTorch's."""

from __future__ import annotations

import weakref
from typing import Any, Optional, Sequence, Union

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask as TorchBlockMask

from .. import block_mask as masks
from .._library import CData, check, ffi, lib
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._device import context_of, device_of


class DeviceBlockMask(BlockMask):
    """A block mask whose lists lie in a torch tensor on a GPU. Asking for its info waits for the device."""

    def __init__(self, builder: CData, shape: CData, device: torch.device, *args: CData, capacity: int = 0,
                 kept: object = ()) -> None:
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        ctx, size, created = context_of(device), ffi.new("size_t *"), ffi.new("saccade_block_mask **")
        params = ffi.new("saccade_device_mask_params *", {
            "shape": shape[0], "device": (lib.kDLCUDA, device.index), "capacity": capacity})  # fmt: skip
        check(lib.saccade_device_mask_bytes(ctx, params, size))
        memory = torch.empty(size[0], dtype=torch.uint8, device=device)
        params.memory, params.memory_bytes = ffi.cast("void *", memory.data_ptr()), size[0]
        check(builder(ctx, created, params, *args))
        super().__init__(created[0], (memory, kept))
        self.device = device

    def _read_info(self, info: CData) -> None:
        check(lib.saccade_device_mask_check(context_of(self.device), self.pointer, info))

    def _export(self, tensors: CData) -> None:
        check(lib.saccade_device_mask_export(context_of(self.device), self.pointer, tensors))

    def raise_what_the_device_found(self) -> None:
        """For builders that read tensors which may be wrong: such a mask would list nothing. Waits for the device,
        unless a graph is being captured."""
        if not torch.cuda.is_current_stream_capturing():
            self._read_info(ffi.NULL)


def build_from_mod(mask_mod: Modifier, q_len: int, kv_len: int, batch: int, num_heads: int, block_size: masks.BlockSize,
                   device: torch.device, capacity: int) -> BlockMask:
    """A block mask on `device`, where the mask_mod's tensors lie."""
    if device.type != "cuda":
        return masks.from_mod(mask_mod, q_len, kv_len, batch=batch, num_heads=num_heads, block_size=block_size)
    kept: list[Any] = []
    bound = ffi.new("saccade_bound_modifier *", mask_mod.bind(kept))
    shape = masks.mask_shape(q_len, kv_len, block_size, batch, num_heads)
    builder = lib.saccade_device_mask_from_mod
    mask = DeviceBlockMask(builder, shape, device, bound, capacity=capacity, kept=(kept, mask_mod))
    if capacity:
        mask.raise_what_the_device_found()
    return mask


LISTS = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
         "q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")  # fmt: skip


def new_lists(batch: int, num_heads: int, blocks: tuple[int, int], device: torch.device) -> list[Tensor]:
    """PyTorch's lists of a mask with that many blocks of queries and of keys, to be filled by `export`."""
    lists = []
    for rows, columns in (blocks, blocks, blocks[::-1], blocks[::-1]):
        shape = batch, num_heads, rows
        lists.append(torch.empty(shape, dtype=torch.int32, device=device))
        lists.append(torch.empty((*shape, columns), dtype=torch.int32, device=device))
    return lists


def from_torch_lists(tensors: Sequence[Any], q_len: int, kv_len: int, block_size: masks.BlockSize) -> BlockMask:
    """A block mask of counts and indices, PARTIAL ones and then, unless None, FULL ones, on their device."""
    batch, heads = tensors[0].shape[:2]
    device, lists = tensors[0].device, dict(zip(LISTS, tensors))
    if device.type != "cuda":
        return masks.from_tensors(lists, q_len, kv_len, batch=batch, num_heads=heads, block_size=block_size)
    shape = masks.mask_shape(q_len, kv_len, block_size, batch, heads)
    c_tensors, kept = masks.exchange_tensors(lists)
    mask = DeviceBlockMask(lib.saccade_device_mask_import, shape, device, c_tensors, kept=(kept, lists))
    mask.raise_what_the_device_found()
    return mask


_NO_BLOCKS = (1 << 30, 1 << 30)  # the block size by which PyTorch says that there is no mask
# By the id of the counts of PARTIAL blocks, while these live: what was imported, and the other lists, which are kept so
# that nobody else gets their ids.
_imported: dict[int, tuple[list[Any], BlockMask, Sequence[Tensor]]] = {}


def torch_lists(block_mask: TorchBlockMask) -> list[Tensor]:
    """The lists of PyTorch's block mask as from_torch_lists takes them; [] where it masks nothing."""
    if not isinstance(block_mask, TorchBlockMask):
        raise TypeError(f"block_mask: a BlockMask of saccade or of PyTorch is needed, not {type(block_mask).__name__}")
    if tuple(block_mask.BLOCK_SIZE) == _NO_BLOCKS:
        return []
    return [t for t in (getattr(block_mask, name) for name in LISTS[:4]) if t is not None]


def import_lists(lists: Sequence[Tensor], q_len: int, kv_len: int, block_size: masks.BlockSize) -> BlockMask:
    """from_torch_lists, made once for as long as the lists stay the same."""
    counts = lists[0]
    state: list[Any] = [q_len, kv_len, block_size, *[(id(t), _version(t)) for t in lists]]
    known = _imported.get(id(counts))
    if known is not None and known[0] == state:
        return known[1]
    # Of other objects over the same memory: `counts` must be free to die, which ends our entry.
    mask = from_torch_lists([t.detach() for t in lists], q_len, kv_len, block_size)
    if known is None:
        weakref.finalize(counts, _imported.pop, id(counts), None).atexit = False
    _imported[id(counts)] = state, mask, lists[1:]
    return mask


def _version(tensor: Tensor) -> object:
    """Changes when the tensor is written to; torch does not count that of inference tensors."""
    return object() if tensor.is_inference() else tensor._version


def eagle3_block_mask(
    q_len: int, kv_len: int, lengths: Union[Tensor, Sequence[int], None] = None,
    BLOCK_SIZE: masks.BlockSize = (128, 128), device: Union[torch.device, str, int] = "cpu",
) -> BlockMask:  # fmt: skip
    """Draft-model training with kv_len = rounds * q_len keys: causal over the first q_len keys, then one key a round.

    lengths (B,): also bounds batch entry b to its first lengths[b] positions. Built without evaluating a mask_mod where
    the block sizes divide the lengths, so that growing kv_len from one round to the next costs microseconds. The
    mask is Eagle 3's training-time test (arXiv 2503.01840).
    """
    device = device_of(device)
    lengths = None if lengths is None else torch.as_tensor(lengths)
    if device.type != "cuda":
        mask = masks.eagle3(q_len, kv_len, None if lengths is None else lengths.tolist(), block_size=BLOCK_SIZE)
    else:
        lengths = None if lengths is None else lengths.to(device, torch.int32)
        shape = masks.mask_shape(q_len, kv_len, BLOCK_SIZE, 1 if lengths is None else len(lengths))
        bounds = CTensor(lengths)
        mask = DeviceBlockMask(lib.saccade_device_mask_eagle3, shape, device, bounds.pointer, kept=bounds)
        if lengths is not None:
            mask.raise_what_the_device_found()
    mask.mask_mod = _Eagle3(q_len, lengths)
    return mask


class _Eagle3:
    """The mask_mod of an Eagle3 mask, for PyTorch."""

    def __init__(self, q_len: int, lengths: Optional[Tensor]):
        self.q_len, self.lengths = q_len, lengths

    def __call__(self, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        causal = (kv_idx < self.q_len) & (q_idx >= kv_idx)
        suffix = (kv_idx >= self.q_len) & ((kv_idx - q_idx) % self.q_len == 0)
        if self.lengths is None:
            return causal | suffix
        length = self.lengths[b]
        return causal & (kv_idx < length) & (q_idx < length) | suffix & (kv_idx % self.q_len < length)

