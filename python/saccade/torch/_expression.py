"""The C expressions that a traced modifier becomes.

A node is an operation over earlier nodes. Nodes are interned, so that equal subexpressions are one node, and a
text is the list of nodes that its result needs, one C declaration each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

FLOAT, INT, BOOL = "float", "int64_t", "bool"


class TraceError(NotImplementedError):
    """A function does something that has no counterpart in a modifier's text."""


@dataclass(frozen=True)
class Node:
    index: int
    op: str
    args: tuple["Node", ...]
    kind: str
    attribute: Any = None  # slot or name of a leaf
    non_negative: bool = False  # integers known to be >= 0 divide as C does


# op: C text over its arguments.
_C = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "not": "!{0}",
    "shl": "{0} * ((int64_t)1 << {1})",
    "shr": "{0} >> {1}",
    "where": "{0} ? {1} : {2}",
    "min": "{0} < {1} ? {0} : {1}",
    "max": "{0} > {1} ? {0} : {1}",
    "to_float": "(float){0}",
    "to_int": "(int64_t){0}",
    "to_bool": "{0} != 0",
    "abs": "fabsf({0})",
    "abs_int": "{0} < 0 ? -{0} : {0}",
    "round": "rintf({0})",
    "pow": "powf({0}, {1})",
    "fmod": "fmodf({0}, {1})",
    "atan2": "atan2f({0}, {1})",
    "detach": "{0}",
}
# Of integers, whose division by 0 would end the process on the CPU, as would that of the least one by -1: 0 and -1 are
# taken out, by 0 all is 0.
_C_OF_INTEGERS = {
    "div": "{1} + 1ull > 1 ? {0} / {1} : {0} * {1}",
    "mod": "{1} + 1ull > 1 ? {0} % {1} : 0",
    "floor_mod": "{1} + 1ull > 1 ? ({0} % {1} + {1}) % {1} : 0",
}
# What C calls as torch does, but for the f.
FUNCTIONS = ("floor", "ceil", "trunc", "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "sin", "cos", "tan",
             "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc")  # fmt: skip
_C.update({name: f"{name}f({{0}})" for name in FUNCTIONS})
_COMPARISONS = {"eq", "ne", "lt", "le", "not", "to_bool"}
_OF_BOOLEANS = {"add": "or", "max": "or", "mul": "and", "min": "and"}  # as in torch
_NON_NEGATIVE_IF_ALL = {"add", "mul", "div", "mod", "min", "to_int", "where"}
_READ = {"float64": "aux_f64", "float32": "aux_f32", "float16": "aux_f16", "bfloat16": "aux_bf16", "int64": "aux_i64",
         "int32": "aux_i32", "int16": "aux_i16", "int8": "aux_i8", "uint8": "aux_u8", "bool": "aux_u8"}
READABLE = tuple(_READ)


class Graph:
    """Builds interned nodes and prints them."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def _node(self, op: str, args: Sequence[Node] = (), kind: str = FLOAT, attribute: Any = None,
              non_negative: bool = False) -> Node:
        key = (op, tuple(a.index for a in args), kind, attribute)
        if key not in self._nodes:
            self._nodes[key] = Node(len(self._nodes), op, tuple(args), kind, attribute, non_negative)
        return self._nodes[key]

    # -- leaves --

    def argument(self, name: str, kind: str) -> Node:
        return self._node("argument", kind=kind, attribute=name, non_negative=kind == INT)

    def scalar(self, slot: int) -> Node:
        return self._node("scalar", kind=FLOAT, attribute=slot)

    def literal(self, value: int) -> Node:
        return self._node("literal", kind=INT, attribute=value, non_negative=value >= 0)

    def constant(self, value: float) -> Node:
        """A number of our formulas."""
        return self._node("literal", attribute=f"{value!r}f")

    def size(self, name: str, dimension: int) -> Node:
        return self._node("size", kind=INT, attribute=(name, dimension), non_negative=True)

    def read(self, name: str, dtype: str, index: Node, non_negative: bool = False) -> Node:
        kind = FLOAT if "float" in dtype else BOOL if dtype == "bool" else INT
        return self._node("read", (index,), kind, (name, dtype), non_negative)

    # -- operations --

    def apply(self, op: str, *args: Node) -> Node:
        if op in _OF_BOOLEANS and all(a.kind == BOOL for a in args):
            op = _OF_BOOLEANS[op]
        if op in ("where", "min", "max", "add", "sub", "mul", "div", "eq", "ne", "lt", "le"):
            values = args[1:] if op == "where" else args
            kind = self._common_kind(op, values)
            args = (*args[: len(args) - len(values)], *(self.cast(a, kind) for a in values))
        kind = BOOL if op in _COMPARISONS else {"to_float": FLOAT, "to_int": INT, "abs_int": INT}.get(op, args[-1].kind)
        values = args[1:] if op == "where" else args
        non_negative = kind == INT and (
            op == "abs_int" or op == "max" and any(a.non_negative for a in values)
            or op in _NON_NEGATIVE_IF_ALL and all(a.non_negative for a in values))
        return self._node(op, args, kind, non_negative=non_negative)

    @staticmethod
    def _common_kind(op: str, values: Sequence[Node]) -> str:
        kinds = {v.kind for v in values}
        if FLOAT in kinds or op == "div" and INT not in kinds:
            return FLOAT
        return BOOL if kinds == {BOOL} and op in ("where", "eq", "ne") else INT

    def cast(self, node: Node, kind: str) -> Node:
        if node.kind == kind:
            return node
        if kind == BOOL:
            return self.apply("to_bool", node)
        return self.apply("to_float" if kind == FLOAT else "to_int", node)

    # -- text --

    def _text_of(self, node: Node) -> str:
        names = [f"v{a.index}" for a in node.args]
        if node.op in ("argument", "literal"):
            return str(node.attribute)
        if node.op == "scalar":
            return f"scalar({node.attribute})"
        if node.op == "size":
            return "aux_size({}, {})".format(*node.attribute)
        if node.op == "read":
            name, dtype = node.attribute
            return f"{_READ[dtype]}({name}, {names[0]})"
        text = _C_OF_INTEGERS.get(node.op, "") if node.kind == INT else ""
        return (text or _C[node.op]).format(*names)

    def body(self, results: list[Node], statements: list[str], returned: Node) -> str:
        """A modifier's body that declares what `results` and `returned` need, runs the statements and returns."""
        needed, stack = set(), [*results, returned]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.args)
        lines = [f"const {n.kind} v{n.index} = {self._text_of(n)};" for n in sorted(needed, key=lambda n: n.index)]
        return "{ " + " ".join([*lines, *statements, f"return v{returned.index};"]) + " }"

