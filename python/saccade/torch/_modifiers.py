"""FlexAttention's Python functions as modifiers."""

from __future__ import annotations

import re
from typing import Any, Callable, Union

import torch

from .. import modifier as texts
from ..modifier import Modifier
from ._spec import NO_PROGRAM, Program
from ._trace import TracedModifier, trace_mask_mod, trace_score_mod
from ._trace_cache import trace_once

Mod = Union[Modifier, str, Callable[..., Any], None]
_TRACES = {"score": trace_score_mod, "mask": trace_mask_mod}


NOTHING = TracedModifier(NO_PROGRAM)


def bound(kind: str, function: Union[Modifier, str, Callable[..., Any]], device: torch.device) -> TracedModifier:
    """A modifier as the operators take it. kind: "score" or "mask"."""
    if not isinstance(function, (Modifier, str)):
        return trace_once(_TRACES[kind], function, device)
    function = texts.as_modifier(kind, function)
    _check_arrays(function)
    values = list(function.scalars.values())
    scalars = torch.tensor(values, dtype=torch.float32, device="cpu") if values else None
    program = Program(function.text, function.grad_text, tuple(function.aux), tuple(function.scalars))
    return TracedModifier(program, list(function.aux.values()), scalars)


def _check_arrays(modifier: Modifier) -> None:
    """They are tensors, and none asks for a gradient that the text does not give."""
    for name, array in modifier.aux.items():
        if not isinstance(array, torch.Tensor):
            raise TypeError(f"{modifier.kind}_mod: {name} is a {type(array).__name__}, here a torch.Tensor is needed")
        if array.requires_grad and torch.is_grad_enabled() and not re.search(
                rf"\baux_grad\(\s*{name}\b", modifier.grad_text):  # fmt: skip
            raise NotImplementedError(f"{modifier.kind}_mod: {name} asks for a gradient, but the text has no "
                                      f"aux_grad({name}, ...); add it to grad_text, or detach the tensor")


def as_modifier(kind: str, function: Union[Modifier, str, Callable[..., Any]], device: torch.device) -> Modifier:
    """A modifier as the library's own functions take it."""
    if isinstance(function, (Modifier, str)):
        return texts.as_modifier(kind, function)
    traced = trace_once(_TRACES[kind], function, device)
    program, scalars = traced.program, [] if traced.scalars is None else traced.scalars.tolist()
    return Modifier(kind, program.text, grad_text=program.grad_text, aux=dict(zip(program.aux, traced.aux)),
                    scalars=dict(zip(program.scalars, scalars)))  # fmt: skip
