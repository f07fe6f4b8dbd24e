"""What a modifier may compute: torch's functions, methods and operators, by name.

An operation gets the tracer and torch's arguments under torch's own names. What C has becomes one node; the rest is
written here in terms of it, over the same stand-ins that the user's functions get.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence

import torch

from ._expression import BOOL, FLOAT, FUNCTIONS, INT, TraceError

if TYPE_CHECKING:
    from ._trace import _Tracer

Operand = Any  # a stand-in for an argument, or what the function captures; and what becomes of them
Operation = Callable[..., Operand]
MOST_FACTORS = 8  # a higher power is not multiplied out


def operate(tracer: _Tracer, name: str, args: Operand, kwargs: Operand) -> Operand:
    """The operation of that name."""
    name = name.removeprefix("special_")  # torch.special's
    if name.endswith("_") and name[:-1] in OPERATIONS:
        return tracer.write(args[0], operate(tracer, name[:-1], args, kwargs))
    operation = OPERATIONS.get(name)
    if operation is None:
        raise TraceError(f"a modifier cannot use {name}; it has {', '.join(sorted(OPERATIONS))}")
    try:
        return operation(tracer, *args, **kwargs)
    except TypeError:
        try:
            inspect.signature(operation).bind(tracer, *args, **kwargs)
        except TypeError as error:
            raise TraceError(f"a modifier cannot use {name} so: {error}") from None
        raise


# -- one node each --


def _unary(op: str, kind: Optional[str] = None) -> Operation:
    def operation(t: _Tracer, input: Operand) -> Operand:
        node = t.node(input)
        return t.value(t.graph.apply(op, t.graph.cast(node, kind) if kind else node))

    return operation


def _binary(op: str, kind: Optional[str] = None) -> Operation:
    def operation(t: _Tracer, input: Operand, other: Operand) -> Operand:
        nodes = (t.node(input), t.node(other))
        return t.value(t.graph.apply(op, *(t.graph.cast(n, kind) if kind else n for n in nodes)))

    return operation


def _swapped(operation: Operation) -> Operation:
    return lambda t, input, other: operation(t, other, input)


def _bitwise(op: str) -> Operation:
    def operation(t: _Tracer, input: Operand, other: Operand) -> Operand:
        nodes = [t.node(input), t.node(other)]
        if any(n.kind == FLOAT for n in nodes):
            raise TraceError(f"{op} of numbers that are not integers or booleans")
        kind = BOOL if all(n.kind == BOOL for n in nodes) else INT
        return t.value(t.graph.apply(op, *(t.graph.cast(n, kind) for n in nodes)))

    return operation


def _invert(t: _Tracer, input: Operand) -> Operand:
    node = t.node(input)
    if node.kind == FLOAT:
        raise TraceError("~ of a number that is no integer or boolean")
    return -t.value(node) - t.literal(1) if node.kind == INT else t.value(t.graph.apply("not", node))


def _where(t: _Tracer, condition: Operand, input: Operand, other: Operand) -> Operand:
    condition, *values = (t.node(x) for x in (condition, input, other))
    return t.value(t.graph.apply("where", t.graph.cast(condition, BOOL), *values))


def _is_float(t: _Tracer, *values: Operand) -> bool:
    return any(t.node(x).kind == FLOAT for x in values)


# -- arithmetic --

_plus, _minus, _quotient = _binary("add"), _binary("sub"), _binary("div", FLOAT)


def _add(t: _Tracer, input: Operand, other: Operand, alpha: Operand = 1) -> Operand:
    return _plus(t, input, other if alpha == 1 else t.value(t.node(other)) * alpha)


def _sub(t: _Tracer, input: Operand, other: Operand, alpha: Operand = 1) -> Operand:
    return _minus(t, input, other if alpha == 1 else t.value(t.node(other)) * alpha)


def _div(t: _Tracer, input: Operand, other: Operand, rounding_mode: Operand = None) -> Operand:
    if rounding_mode == "floor":
        return _floor_divide(t, input, other)
    if rounding_mode == "trunc":
        quotient = _binary("div", INT)
        return t.call("trunc", (_quotient(t, input, other),), {}) if _is_float(t, input, other) else quotient(
            t, input, other)  # fmt: skip
    if rounding_mode is not None:
        raise TraceError(f"rounding_mode: {rounding_mode!r} is none of None, 'floor', 'trunc'")
    return _quotient(t, input, other)


def _floor_divide(t: _Tracer, input: Operand, other: Operand) -> Operand:
    if _is_float(t, input, other):
        return t.call("floor", (_quotient(t, input, other),), {})
    a, b = (t.graph.cast(t.node(x), INT) for x in (input, other))
    if not (a.non_negative and b.non_negative):  # C rounds towards zero
        a = t.graph.apply("sub", a, t.graph.apply("floor_mod", a, b))
    return t.value(t.graph.apply("div", a, b))


def _remainder(t: _Tracer, input: Operand, other: Operand) -> Operand:
    """With the sign of `other`."""
    if _is_float(t, input, other):
        return input - _floor_divide(t, input, other) * other
    a, b = (t.graph.cast(t.node(x), INT) for x in (input, other))
    return t.value(t.graph.apply("mod" if a.non_negative and b.non_negative else "floor_mod", a, b))


def _fmod(t: _Tracer, input: Operand, other: Operand) -> Operand:
    """With the sign of `input`."""
    return _binary("fmod", FLOAT)(t, input, other) if _is_float(t, input, other) else _binary("mod", INT)(
        t, input, other)  # fmt: skip


def _pow(t: _Tracer, input: Operand, exponent: Operand) -> Operand:
    if isinstance(exponent, float) and exponent == 0.5:
        return t.call("sqrt", (input,), {})
    whole = isinstance(exponent, int) or isinstance(exponent, float) and exponent.is_integer()
    if whole and exponent == 0:
        return t.literal(1)
    if whole and abs(exponent) <= MOST_FACTORS:
        base = t.value(t.node(input))
        result = base = base.float() if isinstance(exponent, float) or exponent < 0 else base
        for _ in range(abs(int(exponent)) - 1):
            result = result * base
        return t.literal(1) / result if exponent < 0 else result
    if isinstance(input, int) and input == 2 and not _is_float(t, exponent):
        return _shift("shl")(t, t.literal(1), exponent)
    if not _is_float(t, exponent):
        raise TraceError(f"a modifier can raise to whole powers up to {MOST_FACTORS} only, and positive numbers to the "
                         ".float() of any other")
    return _binary("pow", FLOAT)(t, input, exponent)


def _shift(op: str) -> Operation:
    def operation(t: _Tracer, input: Operand, other: Operand) -> Operand:
        if _is_float(t, input, other):
            raise TraceError("a shift of numbers that are no integers")
        return _binary(op, INT)(t, input, other)

    return operation


def _abs(t: _Tracer, input: Operand) -> Operand:
    return _unary("abs" if _is_float(t, input) else "abs_int")(t, input)


def _sign(t: _Tracer, input: Operand) -> Operand:
    x, zero, one = t.value(t.node(input)), t.literal(0), t.literal(1)
    sign = (x > zero) * one - (x < zero) * one
    return sign.float() if _is_float(t, input) else sign


# -- bounds --


def _relu(t: _Tracer, input: Operand, inplace: bool = False) -> Operand:
    x, zero = t.value(t.node(input)), t.literal(0)
    result = x.where(x > zero, zero)
    return t.write(input, result) if inplace else result


def _clamp(t: _Tracer, input: Operand, min: Operand = None, max: Operand = None) -> Operand:
    """By comparisons, through which the gradient passes on the bounds too, as in torch."""
    x = t.value(t.node(input))
    if min is not None:
        x = t.call("where", (x < min, min, x), {})
    if max is not None:
        x = t.call("where", (x > max, max, x), {})
    return x


# -- functions of one variable that C's are composed to --


def _composed(formula: Callable[..., Operand]) -> Operation:
    """formula(x, number, parameters...) of a float, perhaps in place; number(2) is a 2 that is part of the text."""

    def operation(t: _Tracer, input: Operand, *parameters: Operand, inplace: bool = False, **named: Operand) -> Operand:
        result = formula(t.value(t.node(input)).float(), t.literal, *parameters, **named)
        return t.write(input, result) if inplace else result

    return operation


def _gelu(x: Operand, number: Operand, approximate: Operand = "none") -> Operand:
    if approximate not in ("none", "tanh"):
        raise TraceError(f"approximate: {approximate!r} is neither 'none' nor 'tanh'")
    if approximate == "none":
        share = (x * number(math.sqrt(0.5))).erf()
    else:
        share = ((x + number(0.044715) * x * x * x) * number(math.sqrt(2 / math.pi))).tanh()
    return number(0.5) * x * (number(1) + share)


_sigmoid = _composed(lambda x, number: number(1) / (number(1) + (-x).exp()))
_softplus = _composed(lambda x, number: x.relu() + (-x.abs()).exp().log1p())
_leaky_relu = _composed(lambda x, number, negative_slope=0.01: x.where(x > number(0), x * negative_slope))
# The exponential of what is at most 0, so that the branch not taken is finite, and its gradient 0.
_elu = _composed(lambda x, number, alpha=1.0: x.where(x > number(0), (-(-x).relu()).expm1() * alpha))


# -- dtypes and constants --

_KIND_OF = {torch.float32: FLOAT, torch.float64: FLOAT, torch.float16: FLOAT, torch.bfloat16: FLOAT, torch.bool: BOOL,
            torch.int32: INT, torch.int64: INT}  # fmt: skip


def _to(t: _Tracer, input: Operand, *what: Operand, dtype: Optional[torch.dtype] = None, device: object = None,
        non_blocking: bool = False, copy: bool = False, memory_format: object = None) -> Operand:
    """To a dtype, or that of another; a device is no matter, since everything lives where the kernel runs."""
    for item in (dtype, *what):
        dtype = item if isinstance(item, torch.dtype) else getattr(item, "dtype", dtype)
    value = t.value(t.node(input))
    return value if dtype is None else t.value(t.graph.cast(value.node, _kind_of(dtype)))


def _kind_of(dtype: torch.dtype) -> str:
    if dtype not in _KIND_OF:
        raise TraceError(f"a modifier computes in float32, 64-bit integers and booleans, not in {dtype}")
    return _KIND_OF[dtype]


def _cast(dtype: torch.dtype) -> Operation:
    return lambda t, input: _to(t, input, dtype)


def _same(t: _Tracer, input: Operand) -> Operand:
    return t.value(t.node(input))


def _new(value: int) -> Operation:
    """new_ones, new_zeros: how and_masks and or_masks begin."""
    return lambda t, input, size=(), **options: _new_full(t, input, size, t.literal(value), **options)


def _new_full(t: _Tracer, input: Operand, size: Sequence[int], fill_value: Operand, dtype: Optional[torch.dtype] = None,
              device: object = None, requires_grad: bool = False, layout: object = None,
              pin_memory: bool = False) -> Operand:
    if tuple(size):
        raise TraceError("a modifier cannot make tensors that have dimensions")
    kind = _kind_of(input.dtype if dtype is None else dtype)
    return t.value(t.graph.cast(t.node(fill_value), kind))


def _full_like(t: _Tracer, input: Operand, fill_value: Operand, **options: Operand) -> Operand:
    return _new_full(t, input, (), fill_value, **{name: value for name, value in options.items() if value is not None})


def _like(value: int) -> Operation:
    return lambda t, input, **options: _full_like(t, input, t.literal(value), **options)


# -- the vocabulary --

OPERATIONS: dict[str, Operation] = {
    "add": _add, "sub": _sub, "subtract": _sub, "rsub": lambda t, input, other, alpha=1: _sub(t, other, input, alpha),
    "mul": _binary("mul"), "multiply": _binary("mul"), "neg": _unary("neg"), "negative": _unary("neg"),
    "truediv": _quotient, "true_divide": _quotient, "div": _div, "divide": _div, "rdiv": _swapped(_quotient),
    "floordiv": _floor_divide, "floor_divide": _floor_divide, "mod": _remainder, "remainder": _remainder,
    "fmod": _fmod, "pow": _pow, "lshift": _shift("shl"), "rshift": _shift("shr"),
    "bitwise_left_shift": _shift("shl"), "bitwise_right_shift": _shift("shr"),
    "abs": _abs, "absolute": _abs, "sign": _sign,
    "addcmul": lambda t, input, tensor1, tensor2, value=1: input + _binary("mul")(t, tensor1, tensor2) * value,
    "lerp": lambda t, input, end, weight: input + _minus(t, end, input) * weight,
    "eq": _binary("eq"), "ne": _binary("ne"), "not_equal": _binary("ne"), "lt": _binary("lt"), "less": _binary("lt"),
    "le": _binary("le"), "less_equal": _binary("le"), "gt": _swapped(_binary("lt")),
    "greater": _swapped(_binary("lt")), "ge": _swapped(_binary("le")), "greater_equal": _swapped(_binary("le")),
    "and": _bitwise("and"), "or": _bitwise("or"), "xor": _bitwise("xor"), "bitwise_and": _bitwise("and"),
    "bitwise_or": _bitwise("or"), "bitwise_xor": _bitwise("xor"), "invert": _invert, "bitwise_not": _invert,
    "logical_and": _binary("and", BOOL), "logical_or": _binary("or", BOOL), "logical_xor": _binary("xor", BOOL),
    "logical_not": _unary("not", BOOL),
    "where": _where, "masked_fill": lambda t, input, mask, value: _where(t, mask, value, input),
    "minimum": _binary("min"), "maximum": _binary("max"), "min": _binary("min"), "max": _binary("max"),
    "clamp": _clamp, "clip": _clamp, "clamp_min": lambda t, input, min: _clamp(t, input, min),
    "clamp_max": lambda t, input, max: _clamp(t, input, None, max), "relu": _relu, "leaky_relu": _leaky_relu,
    "fix": _unary("trunc", FLOAT), "round": _unary("round", FLOAT), "atan2": _binary("atan2", FLOAT),
    "frac": _composed(lambda x, number: x - x.trunc()),
    "isnan": lambda t, input: t.value(t.node(input)) != input,
    "isfinite": _composed(lambda x, number: x - x == number(0)),
    "isinf": _composed(lambda x, number: (x == x) & (x - x != number(0))),
    "rsqrt": _composed(lambda x, number: number(1) / x.sqrt()),
    "reciprocal": _composed(lambda x, number: number(1) / x), "square": lambda t, input: _pow(t, input, 2),
    "hypot": lambda t, input, other: (_pow(t, input, 2) + _pow(t, other, 2)).sqrt(),
    "logaddexp": lambda t, input, other: other + _softplus(t, _minus(t, input, other)),
    "sigmoid": _sigmoid, "expit": _sigmoid, "silu": _composed(lambda x, number: x * x.sigmoid()),
    "softplus": _softplus, "logsigmoid": lambda t, input: -_softplus(t, -input),
    "log_sigmoid": lambda t, input: -_softplus(t, -input), "gelu": _composed(_gelu), "elu": _elu,
    "mish": _composed(lambda x, number: x * x.softplus().tanh()),
    "softsign": _composed(lambda x, number: x / (number(1) + x.abs())),
    "to": _to, "type": _to, "type_as": _to, "float": _cast(torch.float32), "double": _cast(torch.float64),
    "half": _cast(torch.float16), "bfloat16": _cast(torch.bfloat16), "int": _cast(torch.int32),
    "long": _cast(torch.int64), "bool": _cast(torch.bool), "clone": _same, "contiguous": _same,
    "detach": _unary("detach"), "new_ones": _new(1), "new_zeros": _new(0), "new_full": _new_full,
    "ones_like": _like(1), "zeros_like": _like(0), "full_like": _full_like,
}  # fmt: skip
for _name in FUNCTIONS:
    OPERATIONS[_name] = _unary(_name, FLOAT)
for _name in ("asin", "acos", "atan", "atan2", "asinh", "acosh", "atanh"):
    OPERATIONS[_name.replace("a", "arc", 1)] = OPERATIONS[_name]
