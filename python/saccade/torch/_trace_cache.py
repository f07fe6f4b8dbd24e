"""Tracing the same function again costs nothing: what a trace can depend on, and the traces that are known.

A trace depends on a function's code and on what that code can reach: its closure, the globals it names, its defaults.
Of these, numbers count by their value; tensors by dtype, rank, whether they ask for a gradient, and which of them are
the same one, since their contents are read when the kernel runs. A function that reaches anything else, or that
computes with a tensor while it is traced, is traced anew each time.
"""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Callable, Hashable, Optional

import torch

from ._trace import TracedModifier

MOST_TRACES = 1024
_VALUES = (int, float, str, bytes, type(None), torch.dtype, torch.device)
_known: dict[Hashable, tuple[TracedModifier, list[Optional[int]]]] = {}


def trace_once(trace: Callable[..., TracedModifier], function: Callable, device: torch.device) -> TracedModifier:
    """trace(function, device), or the same of an earlier like function over this one's tensors."""
    if torch.compiler.is_compiling():
        return trace(function, device)
    reached = _Reached()
    try:
        key = (trace, device, reached.key(function))
    except _Unknown:
        return trace(function, device)
    if key in _known:
        traced, places = _known[key]
        aux = [t if place is None else reached.tensors[place] for t, place in zip(traced.aux, places)]
        return dataclasses.replace(traced, aux=aux)
    traced = trace(function, device)
    if traced.repeatable:
        if len(_known) >= MOST_TRACES:
            _known.clear()
        # Only what the trace itself made, its captured integers, is kept; the function's tensors are its own.
        places = [_find(t, reached.tensors) for t in traced.aux]
        own = [t if place is None else None for t, place in zip(traced.aux, places)]
        _known[key] = dataclasses.replace(traced, aux=own), places
    return traced


class _Unknown(Exception):
    """The function reaches something that may change without our seeing it."""


def _find(item, items: list) -> Optional[int]:
    return next((i for i, other in enumerate(items) if other is item), None)


class _Reached:
    """What a function reaches: the tensors in order, everything else in a key."""

    def __init__(self):
        self.tensors: list[torch.Tensor] = []
        self._functions: list[types.FunctionType] = []

    def key(self, value) -> Hashable:
        if isinstance(value, types.FunctionType):
            return self._function_key(value)
        if isinstance(value, torch.Tensor):
            return "tensor", self._place(value, self.tensors), value.dtype, value.dim(), value.requires_grad
        if isinstance(value, tuple):
            return tuple(self.key(item) for item in value)
        if isinstance(value, _VALUES):
            return type(value), repr(value)  # as text: NaN equals nothing, and -0.0 equals 0.0
        if value is torch or value is math or value is torch.Tensor:
            return id(value)
        raise _Unknown

    def _function_key(self, function: types.FunctionType) -> Hashable:
        seen = len(self._functions)
        place = self._place(function, self._functions)
        if place < seen:
            return "function", place
        try:
            cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
        except ValueError:  # a cell that is still empty
            raise _Unknown from None
        known = function.__globals__
        named = tuple(known[name] for name in sorted(_names(function.__code__)) if name in known)
        keywords = tuple((function.__kwdefaults__ or {}).items())
        return function.__code__, self.key(cells), self.key(named), self.key(function.__defaults__), self.key(keywords)

    @staticmethod
    def _place(item, items: list) -> int:
        place = _find(item, items)
        if place is None:
            place = len(items)
            items.append(item)
        return place


def _names(code: types.CodeType) -> set[str]:
    """Globals that a code may read, and attributes, which look the same; functions defined inside included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)
