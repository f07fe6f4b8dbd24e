"""The constant part of an attention call: what torch.compile and the plans of calls hold on to."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple, Optional

import torch


class Options(NamedTuple):
    """AttentionOptions without its tensors."""

    scale: Optional[float] = None
    causal: Optional[str] = None
    window: Optional[tuple[int, int]] = None  # aligned to the bottom right
    softcap: float = 0.0
    deterministic: bool = False
    backend: Optional[str] = None
    heads_first: bool = False  # q, k, v and out are (B, H, N, D)


class Program(NamedTuple):
    """A modifier without the values that it reads."""

    text: str = ""  # "": there is none
    grad_text: str = ""
    aux: tuple[str, ...] = ()  # names
    scalars: tuple[str, ...] = ()


NO_PROGRAM = Program()


class Spec(NamedTuple):
    options: Options
    score: Program = NO_PROGRAM
    mask: Program = NO_PROGRAM
    others: tuple[str, ...] = ()  # names of the operator's `others`, in order
    num_scalars: int = 0  # of these, at the end: lists of the programs' scalars
    list_blocks: Optional[tuple[int, int]] = None  # of PyTorch's lists, which then end the operator's `others`


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _dump(*values: object) -> str:
    return json.dumps(values)


def spec_text(spec: Spec) -> str:
    """A Spec as operators take it. Floats by their hex(): torch.compile may hold them as symbols, hex() makes
    constants of them."""
    scale, causal, window, softcap, *others = spec.options
    scale_hex = None if scale is None else float(scale).hex()
    text: str = _dump(scale_hex, causal, window, float(softcap).hex(), *others, *spec.score, *spec.mask, *spec[3:])
    return text


@functools.lru_cache(maxsize=1024)
def load(text: str) -> Spec:
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in json.loads(text)]
    scale, causal, window, softcap, *others = values[:7]
    options = Options(None if scale is None else float.fromhex(scale), causal, window, float.fromhex(softcap), *others)
    return Spec(options, Program(*values[7:11]), Program(*values[11:15]), *values[15:])
