"""FlexAttention's Python functions, run once over stand-ins for their arguments and so turned into C text.

What a function captures never becomes part of the text: tensors become aux tensors, Python numbers become entries of
one aux tensor of integers or scalars. So a captured value that changes gives the same text, and nothing recompiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

import torch
from torch.overrides import TorchFunctionMode

from ._expression import BOOL, FLOAT, INT, Graph, Node, reverse

# The aux tensor that holds captured integers.
INTEGERS = "captured_integers"


class TraceError(NotImplementedError):
    """The function does something that has no counterpart in a modifier's text."""


@dataclass
class TracedModifier:
    """A modifier's text and the values it reads, in the order of its slots."""

    text: str
    grad_text: str
    aux_names: tuple[str, ...] = ()
    aux: list[torch.Tensor] = field(default_factory=list)
    scalars: Optional[torch.Tensor] = None  # fp32, on the host
    repeatable: bool = True  # no torch function was computed meanwhile, whose result may differ the next time


def trace_score_mod(function, device) -> TracedModifier:
    """score_mod(score, b, h, q_idx, kv_idx) -> score, with its backward text."""
    tracer = _Tracer(device)
    score = tracer.graph.argument("score", FLOAT)
    result = tracer.graph.cast(tracer.run(function, score), FLOAT)
    text = tracer.graph.body([], [], result)
    return tracer.finish(text, tracer.backward_text(score, result))


def trace_mask_mod(function, device) -> TracedModifier:
    """mask_mod(b, h, q_idx, kv_idx) -> bool."""
    tracer = _Tracer(device)
    result = tracer.graph.cast(tracer.run(function), BOOL)
    return tracer.finish(tracer.graph.body([], [], result), "")


class _Tracer:
    def __init__(self, device):
        self.device = torch.device(device)
        self.graph = Graph()
        self.tensors: list[torch.Tensor] = []
        self.integers: list[int] = []
        self.scalars: list[float] = []
        self.repeatable = True

    def run(self, function, *leading: Node) -> Node:
        indices = [self.graph.argument(name, INT) for name in ("b", "h", "q_idx", "kv_idx")]
        with _Interception(self):
            result = function(*(_Value(self, node) for node in (*leading, *indices)))
        return self.node(result)

    def finish(self, text: str, grad_text: str) -> TracedModifier:
        names = [self.name(tensor) for tensor in self.tensors]
        aux = list(self.tensors)
        if self.integers:
            names.append(INTEGERS)
            aux.append(torch.tensor(self.integers, dtype=torch.int64, device=self.device))
        scalars = torch.tensor(self.scalars, dtype=torch.float32) if self.scalars else None
        return TracedModifier(text, grad_text, tuple(names), aux, scalars, self.repeatable)

    def backward_text(self, score: Node, result: Node) -> str:
        """dL/d score, and aux_grad for every captured float tensor that asks for a gradient."""
        gradients = reverse(self.graph, result, self.graph.argument("grad", FLOAT))
        returned = gradients.get(score, self.graph.cast(self.graph.literal(0), FLOAT))
        statements, needed = [], []
        for node, grad in gradients.items():
            if node.op != "read" or not self.wants_grad(node):
                continue
            needed += [grad, node.args[0]]
            statements.append(f"aux_grad({node.attribute[0]}, v{node.args[0].index}, v{grad.index});")
        return self.graph.body(needed, statements, returned)

    def wants_grad(self, read: Node) -> bool:
        return any(self.name(t) == read.attribute[0] and t.requires_grad for t in self.tensors)

    # -- what the function captures --

    def name(self, tensor: torch.Tensor) -> str:
        return f"captured_{next(i for i, t in enumerate(self.tensors) if t is tensor)}"

    def capture(self, tensor: torch.Tensor) -> str:
        if not any(t is tensor for t in self.tensors):
            self.tensors.append(tensor)
        return self.name(tensor)

    def integer(self, value: int) -> Node:
        if value not in self.integers:
            self.integers.append(value)
        index = self.graph.literal(self.integers.index(value))
        return self.graph.read(INTEGERS, "int64", index, non_negative=value >= 0)

    def scalar(self, value: float) -> Node:
        if torch.compiler.is_compiling():  # perhaps a symbol, which has no text: every use has a slot
            self.scalars.append(value)
            return self.graph.scalar(len(self.scalars) - 1)
        # Compared as text, since NaN equals nothing and -0.0 equals 0.0.
        known = [repr(s) for s in self.scalars]
        if repr(value) not in known:
            self.scalars.append(value)
            known.append(repr(value))
        return self.graph.scalar(known.index(repr(value)))

    def node(self, value) -> Node:
        """Whatever the function may compute with, as a node."""
        if isinstance(value, _Value):
            return value.node
        if isinstance(value, _PartialRead):
            return value.read()
        if isinstance(value, bool):
            return self.graph.apply("ne", self.integer(int(value)), self.graph.literal(0))
        if isinstance(value, int):
            return self.integer(value)
        if isinstance(value, float):
            return self.scalar(value)
        if isinstance(value, torch.Tensor):
            return _PartialRead(self, value).read()
        raise TraceError(f"a modifier cannot compute with a {type(value).__name__}")

    def index(self, tensor: torch.Tensor, index) -> "_PartialRead":
        return _PartialRead(self, tensor)[index]

    def call(self, function, args, kwargs):
        name = function if isinstance(function, str) else function.__name__
        operation = _OPERATIONS.get(name.strip("_"))
        if operation is None:
            raise TraceError(f"a modifier cannot use {name}; it has {', '.join(sorted(_OPERATIONS))}")
        return operation(self, *args, **kwargs)


# What is the same for every tensor of the same dtype and rank that asks for a gradient or does not.
_OF_ANY_LIKE_TENSOR = (torch.Tensor.dim, torch.Tensor.dtype.__get__, torch.Tensor.requires_grad.__get__)


class _Interception(TorchFunctionMode):
    """Sends what torch functions get to see of our stand-ins, indices of real tensors included, to the tracer."""

    def __init__(self, tracer: _Tracer):
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not _mentions_stand_in((*args, *kwargs.values())):
            self.tracer.repeatable &= func in _OF_ANY_LIKE_TENSOR
            return func(*args, **kwargs)
        return self.tracer.call(func, args, kwargs)


def _mentions_stand_in(values) -> bool:
    return any(isinstance(v, (_Value, _PartialRead)) or isinstance(v, (tuple, list)) and _mentions_stand_in(v)
               for v in values)


class _StandIn:
    """Operators and methods of a zero-dimensional tensor."""

    tracer: _Tracer

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        tracer = next(a.tracer for a in args if isinstance(a, _StandIn))
        return tracer.call(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return self.tracer.device

    def __bool__(self):
        raise TraceError("a modifier cannot branch in Python on its arguments: use torch.where, & and |")

    def __getattr__(self, name):
        if name.startswith("__") or name not in _OPERATIONS:
            raise TraceError(f"a modifier cannot use .{name}; it has {', '.join(sorted(_OPERATIONS))}")
        return lambda *args, **kwargs: self.tracer.call(name, (self, *args), kwargs)

    __hash__ = object.__hash__


def _operator(name, reflected=False):
    def method(self, *others):
        args = (*others, self) if reflected else (self, *others)
        return self.tracer.call(name, args, {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor"):
    setattr(_StandIn, f"__{_name}__", _operator(_name))
    setattr(_StandIn, f"__r{_name}__", _operator(_name, reflected=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "invert", "abs", "pow"):
    setattr(_StandIn, f"__{_name}__", _operator(_name))


class _Value(_StandIn):
    def __init__(self, tracer: _Tracer, node: Node):
        self.tracer = tracer
        self.node = node


class _PartialRead(_StandIn):
    """A captured tensor, some of whose leading dimensions are indexed."""

    def __init__(self, tracer: _Tracer, tensor: torch.Tensor, indices: tuple = ()):
        self.tracer = tracer
        self.tensor = tensor
        self.indices = indices

    def __getitem__(self, index):
        indices = index if isinstance(index, tuple) else (index,)
        return _PartialRead(self.tracer, self.tensor, (*self.indices, *indices))

    def read(self) -> Node:
        graph, rank = self.tracer.graph, self.tensor.dim()
        if len(self.indices) != rank:
            raise TraceError(f"a captured tensor of {rank} dimensions is read with {len(self.indices)} indices")
        name = self.tracer.capture(self.tensor)
        flat = graph.literal(0)
        for dimension, index in enumerate(self.indices):
            place = self._place(graph, name, dimension, index)
            flat = place if dimension == 0 else graph.apply(
                "add", graph.apply("mul", flat, graph.size(name, dimension)), place)
        return graph.read(name, str(self.tensor.dtype).removeprefix("torch."), flat)

    def _place(self, graph: Graph, name: str, dimension: int, index) -> Node:
        place = self.tracer.node(index)
        if place.kind == FLOAT:
            raise TraceError("a captured tensor is read with an index that is not an integer")
        place = graph.cast(place, INT)
        if place.non_negative:
            return place
        # As in torch, a negative index counts from the end.
        wrapped = graph.apply("add", place, graph.size(name, dimension))
        return graph.apply("where", graph.apply("lt", place, graph.literal(0)), wrapped, place)


def _elementwise(op, kind=None):
    def operation(tracer: _Tracer, *args):
        nodes = [tracer.node(a) for a in args]
        if kind:
            nodes = [tracer.graph.cast(n, kind) for n in nodes]
        return _Value(tracer, tracer.graph.apply(op, *nodes))

    return operation


def _swapped(op):
    return lambda tracer, a, b: _elementwise(op)(tracer, b, a)


def _integer_or(float_operation, integer_operation):
    def operation(tracer, *args):
        nodes = [tracer.node(a) for a in args]
        chosen = float_operation if any(n.kind == FLOAT for n in nodes) else integer_operation
        return _Value(tracer, chosen(tracer.graph, *(tracer.graph.cast(n, FLOAT if chosen is float_operation else INT)
                                                     for n in nodes)))

    return operation


def _floor_mod(graph, a, b):
    both = a.non_negative and b.non_negative
    return graph.apply("mod" if both else "floor_mod", a, b)


def _floor_div(graph, a, b):
    if a.non_negative and b.non_negative:
        return graph.apply("div", a, b)
    return graph.apply("div", graph.apply("sub", a, _floor_mod(graph, a, b)), b)


def _float_floor_div(graph, a, b):
    return graph.apply("floor", graph.apply("div", a, b))


def _float_mod(graph, a, b):
    return graph.apply("sub", a, graph.apply("mul", _float_floor_div(graph, a, b), b))


def _logical(op):
    def operation(tracer, *args):
        nodes = [tracer.node(a) for a in args]
        if any(n.kind == FLOAT for n in nodes):
            raise TraceError(f"{op} of numbers that are not integers or booleans")
        kind = BOOL if all(n.kind == BOOL for n in nodes) else INT
        return _Value(tracer, tracer.graph.apply(op, *(tracer.graph.cast(n, kind) for n in nodes)))

    return operation


def _not(tracer, a):
    node = tracer.node(a)
    if node.kind != BOOL:
        raise TraceError("~ of something that is not a boolean")
    return _Value(tracer, tracer.graph.apply("not", node))


def _pow(tracer, base, exponent):
    if not isinstance(exponent, int) or not 1 <= exponent <= 8:
        raise TraceError("a modifier can raise to whole powers from 1 to 8 only")
    result = node = tracer.node(base)
    for _ in range(exponent - 1):
        result = tracer.graph.apply("mul", result, node)
    return _Value(tracer, result)


def _clamp(tracer, a, min=None, max=None):
    if min is not None:
        a = _elementwise("max")(tracer, a, min)
    if max is not None:
        a = _elementwise("min")(tracer, a, max)
    return a


def _to(tracer, a, dtype=None, **_):
    if not isinstance(dtype, torch.dtype):
        return a  # a device: everything lives where the kernel runs
    kind = FLOAT if dtype.is_floating_point else BOOL if dtype == torch.bool else INT
    return _Value(tracer, tracer.graph.cast(tracer.node(a), kind))


def _new(value):
    """new_ones, new_zeros: how and_masks and or_masks begin."""

    def operation(tracer, _, size=(), dtype=None, **__):
        if tuple(size):
            raise TraceError("a modifier cannot make tensors that have dimensions")
        return _to(tracer, _Value(tracer, tracer.graph.literal(value)), dtype or torch.float32)

    return operation


def _sigmoid(tracer, a):
    graph = tracer.graph
    one = graph.cast(graph.literal(1), FLOAT)
    decay = graph.apply("exp", graph.apply("neg", graph.cast(tracer.node(a), FLOAT)))
    return _Value(tracer, graph.apply("div", one, graph.apply("add", one, decay)))


_ABS = _integer_or(lambda g, a: g.apply("abs", a), lambda g, a: g.apply("abs_int", a))
_OPERATIONS = {
    "add": _elementwise("add"), "sub": _elementwise("sub"), "rsub": _swapped("sub"), "mul": _elementwise("mul"),
    "neg": _elementwise("neg"), "pow": _pow, "abs": _ABS, "absolute": _ABS,
    "truediv": _elementwise("div", FLOAT), "true_divide": _elementwise("div", FLOAT),
    "div": _elementwise("div", FLOAT), "rdiv": lambda t, a, b: _elementwise("div", FLOAT)(t, b, a),
    "floordiv": _integer_or(_float_floor_div, _floor_div), "floor_divide": _integer_or(_float_floor_div, _floor_div),
    "mod": _integer_or(_float_mod, _floor_mod), "remainder": _integer_or(_float_mod, _floor_mod),
    "eq": _elementwise("eq"), "ne": _elementwise("ne"), "lt": _elementwise("lt"), "le": _elementwise("le"),
    "gt": _swapped("lt"), "ge": _swapped("le"),
    "and": _logical("and"), "or": _logical("or"), "xor": _logical("xor"), "logical_and": _logical("and"),
    "logical_or": _logical("or"), "bitwise_and": _logical("and"), "bitwise_or": _logical("or"),
    "invert": _not, "logical_not": _not, "bitwise_not": _not,
    "where": _elementwise("where"), "minimum": _elementwise("min"), "maximum": _elementwise("max"),
    "clamp": _clamp, "clip": _clamp, "to": _to, "getitem": lambda tracer, tensor, index: (
        tensor[index] if isinstance(tensor, _PartialRead) else tracer.index(tensor, index)),
    "float": lambda t, a: _to(t, a, torch.float32), "int": lambda t, a: _to(t, a, torch.int32),
    "long": lambda t, a: _to(t, a, torch.int64), "bool": lambda t, a: _to(t, a, torch.bool),
    "exp": _elementwise("exp", FLOAT), "exp2": _elementwise("exp2", FLOAT), "log": _elementwise("log", FLOAT),
    "log2": _elementwise("log2", FLOAT), "sqrt": _elementwise("sqrt", FLOAT), "tanh": _elementwise("tanh", FLOAT),
    "sin": _elementwise("sin", FLOAT), "cos": _elementwise("cos", FLOAT), "floor": _elementwise("floor", FLOAT),
    "sigmoid": _sigmoid, "new_ones": _new(1), "new_zeros": _new(0),
}  # fmt: skip
