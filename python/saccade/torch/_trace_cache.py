"""Tracing the same function again costs nothing: what a trace can depend on, and the traces that are known.

A trace depends on a function's code and on what that code can reach: its closure, the globals it names, its defaults.
Of these, numbers count by their value; tensors by dtype, rank, whether they ask for a gradient, which of them are the
same one, and their strides where they are not row-major, since their contents are read when the kernel runs. A function
that reaches anything else, or that computes with a tensor while it is traced, is traced anew each time.
"""

from __future__ import annotations

import functools
import math
import types
from typing import Any, Callable, Hashable, Optional, Sequence

import torch
from torch.compiler import is_compiling

from ._trace import TracedModifier, readable, row_major

MOST_TRACES = 1024
_VALUES = (int, str, bytes, type(None), torch.dtype, torch.device)
# A trace; of each of its tensors the place among those that its function reaches, None for one of its own, captured
# integers and the like, which alone are kept; and whether all are row-major.
_known: dict[Hashable, tuple[TracedModifier, list[Optional[int]], bool]] = {}


def trace_once(trace: Callable[..., TracedModifier], function: Callable[..., Any],
               device: torch.device) -> TracedModifier:
    """trace(function, device), or the same of an earlier like function over this one's tensors, which are given as the
    library takes them."""
    if is_compiling():
        return _readable(trace(function, device))
    tensors: list[torch.Tensor] = []
    reached = _what_is_reached(function, tensors)
    if reached is None:
        return _readable(trace(function, device))
    key = trace, device, reached
    known = _known.get(key)
    if known is not None:
        traced, places, lie_in_rows = known
        if not tensors:
            return traced
        aux = [t if place is None else tensors[place] for t, place in zip(traced.aux, places)]
        traced = TracedModifier(traced.program, aux, traced.scalars)
        return traced if lie_in_rows else _readable(traced)
    traced = trace(function, device)
    if traced.repeatable:
        if len(_known) >= MOST_TRACES:
            _known.clear()
        places = [_find(t, tensors) for t in traced.aux]
        own = [t if place is None else _ELSEWHERE for t, place in zip(traced.aux, places)]
        _known[key] = traced._replace(aux=own), places, all(row_major(t) for t in traced.aux)
    return _readable(traced)


def _readable(traced: TracedModifier) -> TracedModifier:
    return traced._replace(aux=[readable(t) for t in traced.aux])


class _Unknown(Exception):
    """The function reaches something that may change without our seeing it."""


def _what_is_reached(function: Callable[..., Any], tensors: list[torch.Tensor]) -> Optional[Hashable]:
    """Of a function's key: all but what traces it; None where that cannot be said."""
    try:
        return _key(function, tensors, {})
    except _Unknown:
        return None


def _find(item: object, items: Sequence[object]) -> Optional[int]:
    return next((i for i, other in enumerate(items) if other is item), None)


_ELSEWHERE = torch.empty(0, device="cpu")  # in the place of a tensor that is not kept
_MISSING = object()  # a name that is no global: a builtin, or an attribute of something
_THEMSELVES = {id(value) for value in (torch, math, torch.Tensor, _MISSING)}


def _key(value: Any, tensors: list[torch.Tensor], places: dict[int, int]) -> Hashable:
    """What a value means to a trace. Tensors that it reaches for the first time are appended to `tensors`. places: of
    tensors and functions by id, how many were seen before."""
    if id(value) in _THEMSELVES:
        return id(value)
    if isinstance(value, types.FunctionType):
        return _function_key(value, tensors, places)
    if isinstance(value, torch.Tensor):
        place = places.get(id(value))
        if place is None:
            place = places[id(value)] = len(places)
            tensors.append(value)
        layout = None if row_major(value) else (value.shape, value.stride())
        return "tensor", place, value.dtype, value.dim(), value.requires_grad, layout
    if isinstance(value, float):
        return repr(value)  # NaN equals nothing, and -0.0 equals 0.0
    if isinstance(value, _VALUES):
        return type(value), value
    if isinstance(value, tuple):
        return tuple([_key(item, tensors, places) for item in value])
    raise _Unknown


def _function_key(function: types.FunctionType, tensors: list[torch.Tensor], places: dict[int, int]) -> Hashable:
    code, closure, defaults = function.__code__, function.__closure__, function.__defaults__
    names, keywords = _names(code), function.__kwdefaults__
    if not (names or closure or defaults or keywords):
        return code
    if id(function) in places:
        return "function", places[id(function)]
    places[id(function)] = len(places)
    known = function.__globals__
    reached: list[Any] = []
    if closure:
        try:
            reached += [cell.cell_contents for cell in closure]
        except ValueError:  # a cell that is still empty
            raise _Unknown from None
    reached += [known.get(name, _MISSING) for name in names]
    reached += defaults or ()
    reached += (keywords or {}).values()
    return code, len(defaults or ()), tuple(keywords or ()), tuple([_key(value, tensors, places) for value in reached])


@functools.lru_cache(maxsize=MOST_TRACES)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Globals that a code may read, and attributes, which look the same; functions defined inside included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return tuple(sorted(set(code.co_names).union(*inner)))
