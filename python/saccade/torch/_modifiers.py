"""FlexAttention's Python functions as modifiers."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor

from ..modifier import Modifier
from ._trace import trace_mask_mod, trace_score_mod
from ._trace_cache import trace_once

Mod = Union[Modifier, Callable, None]
_TRACES = {"score": trace_score_mod, "mask": trace_mask_mod}


class Bound(NamedTuple):
    """A modifier as the operators take it."""

    text: str = ""
    grad_text: str = ""
    names: tuple[str, ...] = ()
    aux: Sequence[Tensor] = ()
    scalars: Optional[Tensor] = None  # fp32, on the host


_NOTHING = Bound()


def bound(kind: str, function: Mod, device: torch.device) -> Bound:
    """kind: "score" or "mask". What a Python function captures becomes tensors and scalars."""
    if function is None:
        return _NOTHING
    if isinstance(function, Modifier):
        scalars = torch.tensor(list(function.scalars.values()), dtype=torch.float32) if function.scalars else None
        return Bound(function.text, function.grad_text, tuple(function.aux), list(function.aux.values()), scalars)
    traced = trace_once(_TRACES[kind], function, device)
    return Bound(traced.text, traced.grad_text, traced.aux_names, traced.aux, traced.scalars)


def as_modifier(kind: str, function: Union[Callable, Modifier], device: torch.device) -> Modifier:
    """The same for what takes a Modifier."""
    if isinstance(function, Modifier):
        return function
    traced = trace_once(_TRACES[kind], function, device)
    scalars = [] if traced.scalars is None else traced.scalars.tolist()
    return Modifier(kind, traced.text, grad_text=traced.grad_text, aux=dict(zip(traced.aux_names, traced.aux)),
                    scalars={f"scalar_{i}": value for i, value in enumerate(scalars)})  # fmt: skip
