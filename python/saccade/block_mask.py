"""Block masks: which blocks of keys each block of queries visits. See saccade/block_mask.h for every rule."""

from __future__ import annotations

import functools
import itertools
import operator
import os
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Optional, ParamSpec, Sequence, Union

from ._context import context
from ._library import CData, check, ffi, lib, struct
from ._tensor import Tensor
from .modifier import Modifier, as_modifier

BlockSize = Union[int, tuple[int, int]]  # queries and keys of a block, or one number for both
DEFAULT_BLOCK = (128, 128)
_P = ParamSpec("_P")
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # a function, its arguments, its options
# From a random one on, so that no number of another process, as exported programs hold it, is mistaken for one of ours.
_numbers = itertools.count(1 + int.from_bytes(os.urandom(7), "little"))
_by_number: weakref.WeakValueDictionary[int, BlockMask] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class BlockMaskInfo:
    """A mask's geometry, in how many lists (fewer than batch times heads where one serves several) how many blocks of
    each kind stand, and the bytes that these take."""

    batch: int
    num_heads: int
    q_len: int
    kv_len: int
    block_size: tuple[int, int]
    num_q_blocks: int
    num_kv_blocks: int
    num_lists: int
    full: int
    partial: int
    diagonal: int
    bytes: int


class BlockMask:
    """Made by this module's functions; combined with & | ~. device: where its lists lie. Pickled as the call that made
    it, with what its arguments hold by then."""

    device: Any = "cpu"

    def __init__(self, pointer: CData, kept: Any = ()) -> None:
        self.pointer = ffi.gc(pointer, lib.saccade_block_mask_destroy)
        self._kept = kept  # arrays that the mask's own mask_mod reads
        # The Python function that it was made from, where PyTorch knows one.
        self.mask_mod: Optional[Callable[..., Any]] = None
        self.made_by: Optional[_Call] = None
        self.number = next(_numbers)  # how torch operators, which take no objects, know this mask
        _by_number[self.number] = self

    @staticmethod
    def numbered(number: int) -> BlockMask | None:
        """The living mask of that number; None for 0."""
        if not number:
            return None
        mask = _by_number.get(number)
        if mask is None:
            raise RuntimeError("block_mask: is gone, or of another process; a compiled or exported program needs the "
                               "very mask that it was made with")
        return mask

    @property
    def info(self) -> BlockMaskInfo:
        """Counted anew at each look; on a GPU that waits for the device."""
        info = ffi.new("saccade_block_mask_info *")
        self._read_info(info)
        shape = info.shape
        return BlockMaskInfo(shape.batch, shape.num_heads, shape.q_len, shape.kv_len, (shape.q_block, shape.kv_block),
                             info.num_q_blocks, info.num_kv_blocks, info.list_batch * info.list_heads, info.full,
                             info.partial, info.diagonal, info.bytes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, heads, queries, keys; 1 serves any batch or number of heads."""
        info = self.info
        return info.batch, info.num_heads, info.q_len, info.kv_len

    def sparsity(self) -> float:
        """The share of blocks that nobody visits, in percent."""
        info = self.info
        blocks = info.num_lists * info.num_q_blocks * info.num_kv_blocks
        return 100 * (1 - (info.full + info.partial + info.diagonal) / blocks) if blocks else 0.0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a saccade.BlockMask has no {name}; saccade.torch.to_torch_block_mask(mask) is PyTorch's "
                             "own, with its lists and methods")

    def _read_info(self, info: CData) -> None:
        lib.saccade_block_mask_get_info(self.pointer, info)

    def visible(self, b: int, h: int, q_idx: int, kv_idx: int) -> bool:
        """Whether that query sees that key. Of masks on the host."""
        result = ffi.new("_Bool *")
        check(lib.saccade_block_mask_visible(context(), self.pointer, b, h, q_idx, kv_idx, result))
        return bool(result[0])

    def export(self, tensors: dict[str, Any]) -> None:
        """Fills PyTorch's eight tensors by their BlockMask names, those that are given: int32, *_num_blocks (B, H,
        rows) and *_indices (B, H, rows, columns), where rows are blocks of queries on the kv_ side."""
        out, _kept = exchange_tensors(tensors)
        self._export(out)

    def _export(self, tensors: CData) -> None:
        check(lib.saccade_block_mask_export(self.pointer, tensors))

    def __repr__(self) -> str:
        info = self.info
        return (f"<BlockMask of {info.q_len} queries and {info.kv_len} keys in blocks of {info.block_size}, batch "
                f"{info.batch}, heads {info.num_heads}: {info.full} FULL, {info.partial} PARTIAL, {info.diagonal} "
                "DIAGONAL>")

    def __reduce__(self) -> tuple[Any, ...]:
        if self.made_by is None:
            raise TypeError(f"a block mask that lies on {self.device} cannot be pickled: pickle what it is made of")
        return _call, self.made_by, {"mask_mod": self.mask_mod}

    def __and__(self, other: BlockMask) -> BlockMask:
        if not isinstance(other, BlockMask):
            return NotImplemented
        return self._combined(lib.saccade_block_mask_and, operator.and_, other)

    def __or__(self, other: BlockMask) -> BlockMask:
        if not isinstance(other, BlockMask):
            return NotImplemented
        return self._combined(lib.saccade_block_mask_or, operator.or_, other)

    def __invert__(self) -> BlockMask:
        return self._combined(lib.saccade_block_mask_not, operator.invert)

    def _combined(self, builder: CData, operation: Callable[..., Any], *others: BlockMask) -> BlockMask:
        mask = _made(builder, self.pointer, *(other.pointer for other in others), kept=(self, *others))
        mask.made_by = operation, (self, *others), {}
        return mask


def _call(function: Callable[..., BlockMask], args: tuple[Any, ...], options: dict[str, Any]) -> BlockMask:
    return function(*args, **options)


def _builder(build: Callable[_P, BlockMask]) -> Callable[_P, BlockMask]:
    """A function whose masks remember how they were made."""

    @functools.wraps(build)
    def making(*args: _P.args, **options: _P.kwargs) -> BlockMask:
        mask = build(*args, **options)
        mask.made_by = making, args, options
        return mask

    return making


def _made(builder: CData, *args: Any, kept: Any = ()) -> BlockMask:
    created = ffi.new("saccade_block_mask **")
    check(builder(context(), created, *args))
    return BlockMask(created[0], kept)


def exchange_tensors(tensors: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """A saccade_block_mask_tensors of those that are not None, and what it points to."""
    described = {name: Tensor(array) for name, array in tensors.items() if array is not None}
    return ffi.new("saccade_block_mask_tensors *", {name: t.pointer for name, t in described.items()}), described


def mask_shape(q_len: int, kv_len: int, block_size: BlockSize, batch: int = 1, num_heads: int = 1) -> Any:
    """A saccade_mask_shape *."""
    pair = (block_size, block_size) if isinstance(block_size, int) else block_size
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(f"block_size: {block_size!r} is neither a positive whole number nor a pair of such")
    return struct("saccade_mask_shape", {"batch": batch, "num_heads": num_heads, "q_len": q_len, "kv_len": kv_len,
                                         "q_block": pair[0], "kv_block": pair[1]})  # fmt: skip


@_builder
def from_mod(mask_mod: Modifier | str, q_len: int, kv_len: int, *, batch: int = 1, num_heads: int = 1,
             block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """Classifies every block by evaluating the mask_mod, in parallel, without a dense grid. batch and num_heads of 1
    serve any. The mask has its own copy of the arrays that the mask_mod reads."""
    kept: list[Any] = []
    mask_mod = as_modifier("mask", mask_mod)
    bound = ffi.new("saccade_bound_modifier *", mask_mod.bind(kept))
    return _made(lib.saccade_block_mask_from_mod, mask_shape(q_len, kv_len, block_size, batch, num_heads), bound)


@_builder
def causal(q_len: int, kv_len: int, *, bottom_right: bool = False,
           block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """j <= i; bottom_right: j <= i + kv_len - q_len."""
    return _made(lib.saccade_block_mask_causal, mask_shape(q_len, kv_len, block_size), bottom_right)


@_builder
def window(q_len: int, kv_len: int, left: int, right: int, *, bottom_right: bool = False,
           block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """i - left <= j <= i + right; -1: unbounded."""
    return _made(lib.saccade_block_mask_window, mask_shape(q_len, kv_len, block_size), left, right, bottom_right)


def _whole(lengths: Sequence[int]) -> list[int]:
    try:
        return [operator.index(n) for n in lengths]
    except TypeError:
        raise TypeError(f"lengths: {lengths!r} are not whole numbers") from None


@_builder
def documents(lengths: Sequence[int], *, block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """Packed documents of these lengths: query and key must lie in the same one."""
    lengths = _whole(lengths)
    total = sum(lengths)
    return _made(lib.saccade_block_mask_documents, mask_shape(total, total, block_size), ffi.new("int32_t[]", lengths),
                 len(lengths))


@_builder
def eagle3(q_len: int, kv_len: int, lengths: Optional[Sequence[int]] = None, *,
           block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """Speculative-decoding draft training (arXiv 2503.01840): causal over the first q_len keys, then one key a round
    for each query. lengths, one for each batch entry: also bounds it to its first positions."""
    lengths = None if lengths is None else _whole(lengths)
    values = ffi.NULL if lengths is None else ffi.new("int32_t[]", lengths)
    shape = mask_shape(q_len, kv_len, block_size, len(lengths) if lengths else 1)
    return _made(lib.saccade_block_mask_eagle3, shape, values)


@_builder
def from_tensors(tensors: dict[str, Any], q_len: int, kv_len: int, *, batch: int = 1, num_heads: int = 1,
                 block_size: BlockSize = DEFAULT_BLOCK) -> BlockMask:
    """From PyTorch's eight tensors, or the four of the kv_ side. The mask carries no mask_mod: give it at the call."""
    given, _kept = exchange_tensors(tensors)
    return _made(lib.saccade_block_mask_import, mask_shape(q_len, kv_len, block_size, batch, num_heads), given)
