"""Tracing the same function again costs nothing: what a trace can depend on, and the traces that are known.

A trace depends on a function's code and on what that code can reach: its closure, the globals it names, its defaults.
Of these, numbers count by their value; tensors by dtype, rank, whether they ask for a gradient, which of them are the
same one, and their strides where they are not row-major, since their contents are read when the kernel runs. A function
that reaches anything else, or that computes with a tensor while it is traced, is traced anew each time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from typing import Callable, Hashable, Optional

import torch

from ._trace import TracedModifier, row_major

MOST_TRACES = 1024
_VALUES = (int, str, bytes, type(None), torch.dtype, torch.device)
_known: dict[Hashable, tuple[TracedModifier, list[Optional[int]]]] = {}


def trace_once(trace: Callable[..., TracedModifier], function: Callable, device: torch.device) -> TracedModifier:
    """trace(function, device), or the same of an earlier like function over this one's tensors."""
    if torch.compiler.is_compiling():
        return trace(function, device)
    reached = _Reached()
    try:
        key = trace, device, reached.key(function)
    except _Unknown:
        return trace(function, device)
    known = _known.get(key)
    if known is not None:
        traced, places = known
        if not reached.tensors:
            return traced
        aux = [t if place is None else reached.tensors[place] for t, place in zip(traced.aux, places)]
        return TracedModifier(
            traced.text, traced.grad_text, traced.aux_names, aux, traced.scalars, traced.scalar_names)  # fmt: skip
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


_MISSING = object()  # a name that is no global: a builtin, or an attribute of something


class _Reached:
    """What a function reaches: the tensors in order, everything else in a key."""

    __slots__ = ("tensors", "_places")

    def __init__(self):
        self.tensors: list[torch.Tensor] = []
        self._places: dict[int, int] = {}  # of tensors and functions by id: how many were seen before

    def key(self, value) -> Hashable:
        if value is torch or value is math or value is torch.Tensor or value is _MISSING:
            return id(value)
        if isinstance(value, types.FunctionType):
            return self._function_key(value)
        if isinstance(value, torch.Tensor):
            layout = None if row_major(value) else (value.shape, value.stride())
            return "tensor", self._place(value), value.dtype, value.dim(), value.requires_grad, layout
        if isinstance(value, tuple):
            return tuple(self.key(item) for item in value)
        if isinstance(value, float):
            return repr(value)  # NaN equals nothing, and -0.0 equals 0.0
        if isinstance(value, _VALUES):
            return type(value), value
        raise _Unknown

    def _place(self, tensor: torch.Tensor) -> int:
        if id(tensor) not in self._places:
            self._places[id(tensor)] = len(self._places)
            self.tensors.append(tensor)
        return self._places[id(tensor)]

    def _function_key(self, function: types.FunctionType) -> Hashable:
        if id(function) in self._places:
            return "function", self._places[id(function)]
        self._places[id(function)] = len(self._places)
        code, defaults, keywords = function.__code__, function.__defaults__, function.__kwdefaults__
        names, closure = _names(code), function.__closure__
        if not (names or closure or defaults or keywords):
            return code
        try:
            reached = [cell.cell_contents for cell in closure or ()]
        except ValueError:  # a cell that is still empty
            raise _Unknown from None
        known = function.__globals__
        reached += [known.get(name, _MISSING) for name in names]
        reached += defaults or ()
        reached += (keywords or {}).values()
        return code, len(defaults or ()), tuple(keywords or ()), tuple([self.key(value) for value in reached])


@functools.lru_cache(maxsize=MOST_TRACES)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Globals that a code may read, and attributes, which look the same; functions defined inside included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return tuple(sorted(set(code.co_names).union(*inner)))
