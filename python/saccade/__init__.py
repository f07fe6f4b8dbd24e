"""saccade: fast, flexible and sparse attention on CPU and NVIDIA GPU.

    import numpy, saccade
    out = saccade.attention(q, k, v, causal=True)      # q (B, N, H, D), k and v (B, N, Hkv, D)

Arrays of any library that speaks DLPack work without a copy. `saccade.torch` has the functions of PyTorch users, with
autograd; `saccade.block_mask` and `saccade.mask_mod` what FlexAttention calls by these names.
"""

from __future__ import annotations

from typing import Any

from . import block_mask
from ._call import AttentionOptions, forward
from ._library import ArgumentError, CompileError, SaccadeError, UnsupportedError, lib, text
from ._tensor import writable
from .backends import Backend, in_general
from .block_mask import BlockMask
from .modifier import Modifier, mask_mod, score_mod

__all__ = [
    "ArgumentError", "AttentionOptions", "Backend", "BlockMask", "CompileError", "Modifier", "SaccadeError",
    "UnsupportedError", "attention", "backends", "block_mask", "mask_mod", "score_mod",
]  # fmt: skip
__version__ = text(lib.saccade_version())


def backends() -> list[Backend]:
    """Every backend of this library: usable here, or every reason why not."""
    return in_general()


def attention(q: Any, k: Any, v: Any, *, return_lse: bool = False, out: Any = None, **options: Any) -> Any:
    """softmax(scale q k^T, modified and masked) v of NumPy arrays (or anything with DLPack, when `out` is given).

    q (B, Nq, H, D), k (B, Nk, Hkv, D), v (B, Nk, Hkv, Dv) give (B, Nq, H, Dv); or packed, (T, H, D), with
    cu_seqlens_q and cu_seqlens_k. fp32, fp16 or bf16, all alike; H is a multiple of Hkv, D and Dv multiples of 8 up to
    256. The options are the fields of AttentionOptions; score_mod and mask_mod may be C text that reads nothing beside
    its arguments. A row that sees no key gives 0.

    With return_lse also the natural logarithm of each row's sum of exponentials, fp32 (B, H, Nq) or (H, T); -inf where
    the row sees no key.

    Raises ArgumentError (a ValueError) for what is wrong on any backend, UnsupportedError (a NotImplementedError) with
    every backend's reasons, CompileError for a text that does not compile, TypeError for what is no array. Rules and
    formulas: saccade/attention.h.
    """
    import numpy

    for name, array in (("q", q), ("k", k), ("v", v)):
        if not hasattr(array, "shape"):
            raise TypeError(f"{name}: an array is needed, not a {type(array).__name__}")
        if len(array.shape) not in (3, 4):
            raise ValueError(f"{name}: shape is {tuple(array.shape)}, expected (B, N, H, D) or (T, H, D)")
    shape = (*q.shape[:-1], v.shape[-1])
    if not writable(out):
        raise ValueError("out: is read-only")
    if out is None:
        out = numpy.empty(shape, q.dtype)
    rows = (shape[1], shape[0]) if len(shape) == 3 else (shape[0], shape[2], shape[1])
    lse = numpy.empty(rows, numpy.float32) if return_lse else None
    forward(q, k, v, out, lse, AttentionOptions(**options))
    return (out, lse) if return_lse else out
