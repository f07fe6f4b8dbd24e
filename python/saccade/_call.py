"""One attention call, as every front end of this package makes it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from ._context import context
from ._library import CData, check, ffi, lib, struct
from ._tensor import Array, Tensor
from .block_mask import BlockMask
from .modifier import Modifier, as_modifier

CAUSAL = {None: 0, False: 0, True: 1, "top_left": 1, "bottom_right": 2}
MOST_TOKENS = 2**31 - 1
ALIGN = {"top_left": 0, "bottom_right": 1}


@dataclass
class AttentionOptions:
    """saccade_attention_params of saccade/attention.h; None and False are its defaults. All masks given must hold."""

    scale: float | None = None  # 1 / sqrt(D)
    causal: bool | str | None = None  # "top_left" (as True) or "bottom_right": where query 0 lies when Nq != Nk
    window: tuple[int, int] | None = None  # (left, right) keys beside the query's own; -1: unbounded
    window_align: str = "top_left"
    softcap: float = 0.0  # c > 0: c tanh(score / c), before modifiers
    sink: object = None  # (H,) fp32: a score that joins each row's sum and has no value
    alibi_slopes: object = None  # (H,) or (B, H) fp32: score -= slope * |distance|, aligned to the bottom right
    cu_seqlens_q: object = None  # (B + 1,) int32, where each packed sequence begins; both or neither
    cu_seqlens_k: object = None
    seqused_q: object = None  # (B,) int32: how much of each sequence is used
    seqused_k: object = None
    max_seqlen_q: int = 0  # at least the longest sequence; needed where cu_seqlens lie on a GPU
    max_seqlen_k: int = 0
    score_mod: Modifier | str | None = None
    mask_mod: Modifier | str | None = None
    block_mask: BlockMask | None = None
    deterministic: bool = False  # gradients are the same bits every time
    backend: str | None = None  # one by name; the best usable

    _TENSORS = ("sink", "alibi_slopes", "cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k")

    def to_c(self, kept: list[Any]) -> CData:
        """A saccade_attention_params; what it points to is appended to `kept`."""
        if self.causal not in CAUSAL:
            raise ValueError(f'causal: {self.causal!r} is none of False, True, "top_left", "bottom_right"')
        fields: dict[str, Any] = {
            "has_scale": self.scale is not None, "scale": self.scale or 0.0, "causal": CAUSAL[self.causal],
            "softcap": self.softcap, "max_seqlen_q": self.max_seqlen_q, "max_seqlen_k": self.max_seqlen_k,
            "deterministic": self.deterministic}  # fmt: skip
        if self.window_align not in ALIGN:
            raise ValueError(f'window_align: {self.window_align!r} is neither "top_left" nor "bottom_right"')
        if self.window is not None:
            if (not isinstance(self.window, (tuple, list)) or len(self.window) != 2
                    or not all(isinstance(side, Integral) for side in self.window)):  # fmt: skip
                raise ValueError(f"window: {self.window!r} is no pair (left, right) of whole numbers")
            if max(self.window) > MOST_TOKENS:
                raise ValueError(f"window: {self.window!r}, each side is at most {MOST_TOKENS}; -1: unbounded")
            fields["window"] = (True, *self.window, ALIGN[self.window_align])
        for name in self._TENSORS:
            array = getattr(self, name)
            if array is not None:
                kept.append(Tensor.of(array, name))
                fields[name] = kept[-1].pointer
        for name in ("score_mod", "mask_mod"):
            modifier = getattr(self, name)
            if modifier is not None:
                fields[name] = as_modifier(name.removesuffix("_mod"), modifier).bind(kept)
        if self.block_mask is not None:
            if not isinstance(self.block_mask, BlockMask):
                raise TypeError(f"block_mask: a saccade.BlockMask is needed, not {type(self.block_mask).__name__}")
            fields["block_mask"] = self.block_mask.pointer
        if self.backend is not None:
            kept.append(ffi.new("char[]", str(self.backend).encode()))
            fields["backend"] = kept[-1]
        params = struct("saccade_attention_params", fields)
        kept.append(params)
        return params


def forward(q: Array, k: Array, v: Array, out: Array, lse: Array, options: AttentionOptions) -> None:
    """Writes out and, unless None, lse."""
    kept: list[Any] = []
    tensors = [Tensor.of(t, name) for t, name in zip((q, k, v, out, lse), ("q", "k", "v", "out", "lse"))]
    check(lib.saccade_attention_forward(context(), *(t.pointer for t in tensors), options.to_c(kept)))
