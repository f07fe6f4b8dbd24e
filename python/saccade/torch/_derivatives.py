"""Derivatives of a modifier's expression, as expressions again: reverse mode over its nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Union

from ._expression import FLOAT, Graph, Node


@dataclass(frozen=True)
class _Term:
    """A node with Python's operators, so that the rules below read as formulas."""

    graph: Graph
    node: Node

    def apply(self, op: str, *others: Operand) -> _Term:
        nodes = [x.node if isinstance(x, _Term) else self.graph.constant(float(x)) for x in (self, *others)]
        return _Term(self.graph, self.graph.apply(op, *nodes))

    def where(self, yes: Operand, no: Operand) -> _Term:
        return self.apply("where", yes, no)

    def __add__(self, other: Operand) -> _Term:
        return self.apply("add", other)

    def __sub__(self, other: Operand) -> _Term:
        return self.apply("sub", other)

    def __rsub__(self, other: float) -> _Term:
        return -self + other

    def __mul__(self, other: Operand) -> _Term:
        return self.apply("mul", other)

    def __truediv__(self, other: Operand) -> _Term:
        return self.apply("div", other)

    def __neg__(self) -> _Term:
        return self.apply("neg")

    def __lt__(self, other: Operand) -> _Term:
        return self.apply("lt", other)


Operand = Union[_Term, float]

_BELL = 2 / math.sqrt(math.pi)  # the slope of erf at 0
_LOG_2 = math.log(2)

# dL/dx of y = op(x), given d = dL/dy.
_OF_ONE: dict[str, Callable[[_Term, _Term, _Term], _Term]] = {
    "neg": lambda x, y, d: -d,
    "abs": lambda x, y, d: (x < 0).where(-d, (-x < 0).where(d, 0)),
    "exp": lambda x, y, d: d * y,
    "exp2": lambda x, y, d: d * y * _LOG_2,
    "expm1": lambda x, y, d: d * (y + 1),
    "log": lambda x, y, d: d / x,
    "log2": lambda x, y, d: d / (x * _LOG_2),
    "log1p": lambda x, y, d: d / (x + 1),
    "sqrt": lambda x, y, d: d / (y + y),
    "sin": lambda x, y, d: d * x.apply("cos"),
    "cos": lambda x, y, d: -d * x.apply("sin"),
    "tan": lambda x, y, d: d * (y * y + 1),
    "asin": lambda x, y, d: d / (1 - x * x).apply("sqrt"),
    "acos": lambda x, y, d: -d / (1 - x * x).apply("sqrt"),
    "atan": lambda x, y, d: d / (x * x + 1),
    "sinh": lambda x, y, d: d * x.apply("cosh"),
    "cosh": lambda x, y, d: d * x.apply("sinh"),
    "tanh": lambda x, y, d: d * (1 - y * y),
    "asinh": lambda x, y, d: d / (x * x + 1).apply("sqrt"),
    "acosh": lambda x, y, d: d / (x * x - 1).apply("sqrt"),
    "atanh": lambda x, y, d: d / (1 - x * x),
    "erf": lambda x, y, d: d * (-(x * x)).apply("exp") * _BELL,
    "erfc": lambda x, y, d: -d * (-(x * x)).apply("exp") * _BELL,
}


def _of_the_less(a: _Term, b: _Term, d: _Term) -> _Term:
    """Of a, as far as it is the lesser one; equals share, as in torch."""
    return (a < b).where(d, (b < a).where(0, d * 0.5))


def _of_power(x: _Term, e: _Term, y: _Term, d: _Term) -> tuple[_Term, _Term]:
    """The base's is 0 under an exponent of 0, the exponent's for a base of 0."""
    of_base = e.apply("eq", 0).where(0, d * e * x.apply("pow", e - 1))
    return of_base, x.apply("eq", 0).where(0, d * y * x.apply("log"))


# The same of y = op(a, b): dL/da, dL/db.
_OF_TWO: dict[str, Callable[[_Term, _Term, _Term, _Term], tuple[_Term, _Term]]] = {
    "add": lambda a, b, y, d: (d, d),
    "sub": lambda a, b, y, d: (d, -d),
    "mul": lambda a, b, y, d: (d * b, d * a),
    "div": lambda a, b, y, d: (d / b, -(d * y) / b),
    "min": lambda a, b, y, d: (_of_the_less(a, b, d), _of_the_less(b, a, d)),
    "max": lambda a, b, y, d: (_of_the_less(b, a, d), _of_the_less(a, b, d)),
    "pow": _of_power,
    "fmod": lambda a, b, y, d: (d, -d * (a / b).apply("trunc")),
    "atan2": lambda a, b, y, d: (d * b / (a * a + b * b), -d * a / (a * a + b * b)),
}


def derivatives(graph: Graph, node: Node, grad: Node) -> list[tuple[Node, Node]]:
    """(argument, its share of the gradient) for each argument through which a float gradient flows."""
    if node.kind != FLOAT:
        return []
    y, d, *args = (_Term(graph, n) for n in (node, grad, *node.args))
    if node.op == "where":
        shares = [(args[1], args[0].where(d, 0)), (args[2], args[0].where(0, d))]
    elif node.op in _OF_ONE:
        shares = [(args[0], _OF_ONE[node.op](args[0], y, d))]
    elif node.op in _OF_TWO:
        shares = list(zip(args, _OF_TWO[node.op](args[0], args[1], y, d)))
    else:
        return []
    return [(argument.node, share.node) for argument, share in shares if argument.node.kind == FLOAT]


def reverse(graph: Graph, output: Node, grad: Node) -> dict[Node, Node]:
    """Gradients of every float node under `output`, given that of `output`."""
    reachable, stack = set(), [output]
    while stack:
        node = stack.pop()
        if node not in reachable:
            reachable.add(node)
            stack.extend(node.args)
    gradients = {output: grad}
    for node in sorted(reachable, key=lambda n: -n.index):
        if node not in gradients:
            continue
        for argument, share in derivatives(graph, node, gradients[node]):
            seen = gradients.get(argument)
            gradients[argument] = graph.apply("add", seen, share) if seen else share
    return gradients
