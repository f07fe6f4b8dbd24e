"""FlexAttention's Python functions, run once over stand-ins for their arguments and so turned into C text.

What a function captures never becomes part of the text: tensors become aux tensors, Python numbers become entries of
one aux tensor of integers or scalars. So a captured value that changes gives the same text, and nothing recompiles.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence, Union

import torch
from torch.overrides import TorchFunctionMode

from ._derivatives import reverse
from ._expression import BOOL, FLOAT, INT, READABLE, Graph, Node, TraceError
from ._operations import OPERATIONS, Operand, operate
from ._spec import Program

# The aux tensors that hold captured integers, and floats for which there are no scalars left.
INTEGERS, FLOATS = "captured_integers", "captured_floats"
MOST_SCALARS = 16
MOST_DIMENSIONS = 4  # of a tensor that the library reads


class TracedModifier(NamedTuple):
    """A modifier and the values it reads, in the order of its slots."""

    program: Program
    aux: Sequence[torch.Tensor] = ()
    scalars: Optional[torch.Tensor] = None  # fp32, on the host
    repeatable: bool = True  # no torch function was computed meanwhile, whose result may differ the next time


def trace_score_mod(function: Callable[..., Any], device: Union[torch.device, str]) -> TracedModifier:
    """score_mod(score, b, h, q_idx, kv_idx) -> score, with its backward text."""
    tracer = _Tracer(device, differentiable=True)
    score = tracer.graph.argument("score", FLOAT)
    result = tracer.graph.cast(tracer.run("score_mod", function, score), FLOAT)
    text = tracer.graph.body([], [], result)
    return tracer.finish(text, tracer.backward_text(score, result))


def trace_mask_mod(function: Callable[..., Any], device: Union[torch.device, str]) -> TracedModifier:
    """mask_mod(b, h, q_idx, kv_idx) -> bool."""
    tracer = _Tracer(device)
    result = tracer.run("mask_mod", function)
    if result.kind != BOOL:
        raise TypeError(f"mask_mod: returns {'a float' if result.kind == FLOAT else 'an integer'}, must be a boolean")
    return tracer.finish(tracer.graph.body([], [], result), "")


def _check_signature(kind: str, function: Callable[..., Any], values: Sequence[Any]) -> None:
    if not callable(function):
        raise TypeError(f"{kind}: a function is needed, or C text, not a {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of functions made in C, not all say
        return
    try:
        signature.bind(*values)
    except TypeError:
        given = "score, " * (len(values) == 5) + "b, h, q_idx, kv_idx"
        raise TypeError(f"{kind}: is called with ({given}), but takes {signature}") from None


class _Tracer:
    def __init__(self, device: Union[torch.device, str], differentiable: bool = False) -> None:
        self.device = torch.device(device)
        self.differentiable = differentiable
        self.graph = Graph()
        self.tensors: list[torch.Tensor] = []
        self.integers: list[int] = []
        self.scalars: list[float] = []
        self.repeatable = True

    def run(self, kind: str, function: Callable[..., Any], *leading: Node) -> Node:
        """kind: what the caller calls the function."""
        indices = [self.graph.argument(name, INT) for name in ("b", "h", "q_idx", "kv_idx")]
        values = [_Value(self, node) for node in (*leading, *indices)]
        if not torch.compiler.is_compiling():
            _check_signature(kind, function, values)
        with torch.enable_grad(), _Interception(self):
            result = function(*values)
        if result is None:
            raise TypeError(f"{kind}: returns None; is a return missing?")
        return self.node(result)

    def finish(self, text: str, grad_text: str) -> TracedModifier:
        names = [self.name(tensor) for tensor in self.tensors]
        aux = list(self.tensors)
        if self.integers:
            names.append(INTEGERS)
            aux.append(torch.tensor(self.integers, dtype=torch.int64, device=self.device))
        values, more = self.scalars[:MOST_SCALARS], self.scalars[MOST_SCALARS:]
        if more:
            names.append(FLOATS)
            aux.append(torch.tensor(more, dtype=torch.float32, device=self.device))
        scalars = torch.tensor(values, dtype=torch.float32, device="cpu") if values else None
        scalar_names = tuple(f"scalar_{i}" for i in range(len(values)))  # the text knows them by number
        return TracedModifier(Program(text, grad_text, tuple(names), scalar_names), aux, scalars, self.repeatable)

    def backward_text(self, score: Node, result: Node) -> str:
        """dL/d score, and aux_grad for every captured float tensor that asks for a gradient."""
        gradients = reverse(self.graph, result, self.graph.argument("grad", FLOAT))
        returned = gradients.get(score, self.graph.cast(self.graph.literal(0), FLOAT))
        statements: list[str] = []
        needed: list[Node] = []
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
        if not -(2**63) <= value < 2**63:
            raise TraceError(f"a modifier computes in 64-bit integers, of which {value} is none")
        if value not in self.integers:
            self.integers.append(value)
        index = self.graph.literal(self.integers.index(value))
        return self.graph.read(INTEGERS, "int64", index, non_negative=value >= 0)

    def scalar(self, value: float) -> Node:
        if torch.compiler.is_compiling():  # perhaps a symbol, which has no text: every use has a slot
            self.scalars.append(value)
            return self._scalar_at(len(self.scalars) - 1)
        # Compared as text, since NaN equals nothing and -0.0 equals 0.0.
        known = [repr(s) for s in self.scalars]
        if repr(value) not in known:
            self.scalars.append(value)
            known.append(repr(value))
        return self._scalar_at(known.index(repr(value)))

    def _scalar_at(self, index: int) -> Node:
        if index < MOST_SCALARS:
            return self.graph.scalar(index)
        return self.graph.read(FLOATS, "float32", self.graph.literal(index - MOST_SCALARS))

    def node(self, value: Any) -> Node:
        """Whatever the function may compute with, as a node."""
        if isinstance(value, _StandIn):
            return value.node or value.read()
        if isinstance(value, bool):
            return self.graph.apply("ne", self.integer(int(value)), self.graph.literal(0))
        if isinstance(value, int):
            return self.integer(value)
        if isinstance(value, float):
            return self.scalar(value)
        if isinstance(value, torch.Tensor):
            return self.number_on_the_host(value) or _PartialRead(self, value).read()
        raise TraceError(f"a modifier cannot compute with a {type(value).__name__}")

    def number_on_the_host(self, tensor: torch.Tensor) -> Optional[Node]:
        """As everywhere in torch, a tensor without dimensions may stay on the host."""
        if tensor.dim() or tensor.device.type != "cpu" or self.device.type == "cpu":
            return None
        if tensor.requires_grad or torch.compiler.is_compiling():
            raise TraceError(f"a captured tensor lies on the host, the call's on {self.device}")
        self.repeatable = False
        return self.node(tensor.item())

    def value(self, node: Node) -> Operand:
        return _Value(self, node)

    def literal(self, number: Union[int, float]) -> Operand:
        """A number that is part of the text, unlike those that the function captures."""
        return _Value(self, self.graph.literal(number) if isinstance(number, int) else self.graph.constant(number))

    def write(self, target: Any, result: Any) -> _StandIn:
        """What torch's in-place functions do: `target` itself becomes the result, in its own dtype."""
        if not isinstance(target, _StandIn):
            raise TraceError("a modifier cannot write to a tensor that it captures")
        node, kind = self.node(result), self.node(target).kind
        if kind not in (node.kind, FLOAT) and node.kind != BOOL:
            raise TraceError(f"a modifier cannot write a {node.kind} into a {kind} in place")
        target.node = self.graph.cast(node, kind)
        return target

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a torch function, or a method or operator of that name, gives."""
        if self.differentiable and not torch.is_grad_enabled():  # by torch.no_grad, or an autograd.Function
            raise TraceError("a score_mod cannot say what gradient a part of it has, by torch.no_grad or an "
                             "autograd.Function: it is derived from what is computed; .detach() takes a part out")
        name = "getitem" if function is operator.getitem else getattr(function, "__name__", function)  # or its name
        if function is torch.Tensor.where:  # unlike torch.where, it begins with what is taken where the condition holds
            args = (args[1], args[0], *args[2:])
        name = name[2:-2] if name.startswith("__") else name
        if name == "getitem":
            tensor, index = args
            return (tensor if isinstance(tensor, _PartialRead) else _PartialRead(self, tensor))[index]
        return operate(self, name, args, kwargs)


_RANDOM = ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
           "multinomial", "uniform", "dropout")  # fmt: skip
# What is the same for every tensor that the cache of traces takes for alike: see there.
_Tensor: Any = torch.Tensor
_OF_ANY_LIKE_TENSOR = (_Tensor.dim, _Tensor.dtype.__get__, _Tensor.requires_grad.__get__, _Tensor.is_contiguous)
_OF_ANY_THAT_LIES_ALIKE = (_Tensor.shape.__get__, _Tensor.stride)


class _Interception(TorchFunctionMode):
    """Sends what torch functions get to see of our stand-ins, indices of real tensors included, to the tracer."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _mentions_stand_in((*args, *kwargs.values())):
            if getattr(func, "__name__", "").removesuffix("_") in _RANDOM:
                raise TraceError(f"a modifier cannot be random: {func.__name__}")
            alike = func in _OF_ANY_LIKE_TENSOR or func in _OF_ANY_THAT_LIES_ALIKE and not row_major(args[0])
            self.tracer.repeatable &= alike
            return func(*args, **kwargs)
        return self.tracer.call(func, args, kwargs)


def _mentions_stand_in(values: Iterable[Any]) -> bool:
    return any(isinstance(v, (_Value, _PartialRead)) or isinstance(v, (tuple, list)) and _mentions_stand_in(v)
               or isinstance(v, slice) and _mentions_stand_in((v.start, v.stop, v.step)) for v in values)


class _StandIn:
    """Operators and methods of a zero-dimensional tensor."""

    tracer: _Tracer
    node: Optional[Node] = None  # its value; None: to be read

    def read(self) -> Node:
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        tracer = next(a.tracer for a in args if isinstance(a, _StandIn))
        return tracer.call(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return self.tracer.device

    @property
    def shape(self) -> torch.Size:
        return torch.Size(())

    def __bool__(self) -> bool:
        raise TraceError("a modifier cannot branch in Python on its arguments: use torch.where, & and |")

    def __index__(self) -> int:
        raise TraceError("a modifier cannot make Python numbers of its arguments: a list that they index must be a "
                         "tensor")

    __int__ = __index__
    __float__: Any = __index__

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TraceError("a modifier cannot write to a part of a tensor")

    def __iter__(self) -> Iterator[Any]:
        raise TraceError("a modifier's arguments have no dimensions to iterate over")

    def __pos__(self) -> _StandIn:
        return self

    def where(self, condition: Any, other: Any) -> Any:
        return self.tracer.call("where", (condition, self, other), {})

    def __getattr__(self, name: str) -> Any:
        if name.removesuffix("_") not in OPERATIONS:
            raise TraceError(f"a modifier cannot use .{name}; it has {', '.join(sorted(OPERATIONS))}")
        return lambda *args, **kwargs: self.tracer.call(name, (self, *args), kwargs)

    __hash__ = object.__hash__


def _operator(name: str, reflected: bool = False) -> Callable[..., Any]:
    def method(self: _StandIn, *others: Any) -> Any:
        args = (*others, self) if reflected else (self, *others)
        return self.tracer.call(name, args, {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
    setattr(_StandIn, f"__{_name}__", _operator(_name))
    setattr(_StandIn, f"__i{_name}__", _operator(f"{_name}_"))
    setattr(_StandIn, f"__r{_name}__", _operator(_name, reflected=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "invert", "abs"):
    setattr(_StandIn, f"__{_name}__", _operator(_name))


class _Value(_StandIn):
    def __init__(self, tracer: _Tracer, node: Node) -> None:
        self.tracer = tracer
        self.node = node

    @property
    def dtype(self) -> torch.dtype:
        """Of the arguments as PyTorch has them; a modifier computes in float32 and 64 bits."""
        return {FLOAT: torch.float32, INT: torch.int32, BOOL: torch.bool}[self.tracer.node(self).kind]


_OPEN = slice(None)


def row_major(tensor: torch.Tensor) -> bool:
    """Whether the library reads the tensor by its own dimensions."""
    return tensor.is_contiguous() and tensor.dim() <= MOST_DIMENSIONS


def readable(tensor: torch.Tensor) -> torch.Tensor:
    """A captured tensor as the library takes it: row-major, or all its memory from the first element to the last, over
    which the text then computes its own places."""
    if row_major(tensor):
        return tensor
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.as_strided((last + 1 if tensor.numel() else 0,), (1,))


class _PartialRead(_StandIn):
    """A captured tensor, some of whose dimensions are indexed; the others are still open."""

    def __init__(self, tracer: _Tracer, tensor: torch.Tensor, indices: Optional[tuple[Any, ...]] = None) -> None:
        self.tracer = tracer
        self.tensor = tensor
        self.indices = (_OPEN,) * tensor.dim() if indices is None else indices

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def __getitem__(self, index: Any) -> _PartialRead:
        given = list(index) if isinstance(index, tuple) else [index]
        places = [i for i, known in enumerate(self.indices) if known is _OPEN]
        dots = next((i for i, item in enumerate(given) if item is Ellipsis), None)
        if dots is not None:
            given[dots : dots + 1] = [_OPEN] * (len(places) - len(given) + 1)
        if len(given) > len(places):
            raise TraceError(f"a captured tensor of {self.tensor.dim()} dimensions is read with "
                             f"{self.tensor.dim() - len(places) + len(given)} indices")
        indices = list(self.indices)
        for place, item in zip(places, given):
            if isinstance(item, slice) and any(x is not None for x in (item.start, item.stop, item.step)):
                raise TraceError("a modifier cannot take a part of a captured tensor by its arguments")
            indices[place] = _OPEN if isinstance(item, slice) else item
        return _PartialRead(self.tracer, self.tensor, tuple(indices))

    def read(self) -> Node:
        known = sum(index is not _OPEN for index in self.indices)
        if known != self.tensor.dim():
            raise TraceError(f"a captured tensor of {self.tensor.dim()} dimensions is read with {known} indices")
        dtype = str(self.tensor.dtype).removeprefix("torch.")
        if dtype not in READABLE:
            raise TraceError(f"a captured tensor is {dtype}, a modifier reads {', '.join(READABLE)}: convert it "
                             "outside of the function")
        name = self.tracer.capture(self.tensor)
        return self.tracer.graph.read(name, dtype, self._row_major(name) if row_major(self.tensor) else self._strided())

    def _row_major(self, name: str) -> Node:
        graph, flat = self.tracer.graph, self.tracer.graph.literal(0)
        for dimension, index in enumerate(self.indices):
            size = graph.size(name, dimension)
            place = self._place(index, size)
            flat = place if dimension == 0 else graph.apply("add", graph.apply("mul", flat, size), place)
        return flat

    def _strided(self) -> Node:
        """Of the tensor's memory, as `readable` shows it to the library."""
        graph, flat = self.tracer.graph, self.tracer.graph.literal(0)
        for index, size, stride in zip(self.indices, self.tensor.shape, self.tensor.stride()):
            place = self._place(index, self.tracer.integer(size))
            flat = graph.apply("add", flat, graph.apply("mul", place, self.tracer.integer(stride)))
        return flat

    def _place(self, index: Any, size: Node) -> Node:
        graph, place = self.tracer.graph, self.tracer.node(index)
        if place.kind == FLOAT:
            raise TraceError("a captured tensor is read with an index that is not an integer")
        place = graph.cast(place, INT)
        if place.non_negative:
            return place
        # As in torch, a negative index counts from the end.
        return graph.apply("where", graph.apply("lt", place, graph.literal(0)), graph.apply("add", place, size), place)
