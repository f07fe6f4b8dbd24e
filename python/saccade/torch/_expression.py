"""The C expressions that a traced modifier becomes, and their derivatives.

A node is an operation over earlier nodes. Nodes are interned, so that equal subexpressions are one node, and a
text is the list of nodes that its result needs, one C declaration each.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT, INT, BOOL = "float", "int64_t", "bool"


class TraceError(NotImplementedError):
    """A function does something that has no counterpart in a modifier's text."""


@dataclass(frozen=True)
class Node:
    index: int
    op: str
    args: tuple["Node", ...]
    kind: str
    attribute: object = None  # slot or name of a leaf
    non_negative: bool = False  # integers known to be >= 0 divide as C does


# op: C text over its arguments.
_C = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "mod": "{0} % {1}",
    "floor_mod": "({0} % {1} + {1}) % {1}",
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
    "floor": "floorf({0})",
    "abs": "fabsf({0})",
    "abs_int": "{0} < 0 ? -{0} : {0}",
    "exp": "expf({0})",
    "exp2": "exp2f({0})",
    "log": "logf({0})",
    "log2": "log2f({0})",
    "sqrt": "sqrtf({0})",
    "pow": "exp2f({1} * log2f({0}))",
    "tanh": "tanhf({0})",
    "sin": "sinf({0})",
    "cos": "cosf({0})",
    "detach": "{0}",
}
_COMPARISONS = {"eq", "ne", "lt", "le", "not", "to_bool"}
_NON_NEGATIVE_IF_ALL = {"add", "mul", "div", "mod", "min", "to_int", "where"}
_READ = {"float32": "aux_f32", "float16": "aux_f16", "bfloat16": "aux_bf16", "int32": "aux_i32", "int64": "aux_i64",
         "uint8": "aux_u8", "bool": "aux_u8"}
READABLE = tuple(_READ)


class Graph:
    """Builds interned nodes and prints them."""

    def __init__(self):
        self._nodes: dict[tuple, Node] = {}

    def _node(self, op, args=(), kind=FLOAT, attribute=None, non_negative=False) -> Node:
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

    def size(self, name: str, dimension: int) -> Node:
        return self._node("size", kind=INT, attribute=(name, dimension), non_negative=True)

    def read(self, name: str, dtype: str, index: Node, non_negative=False) -> Node:
        kind = FLOAT if "float" in dtype else BOOL if dtype == "bool" else INT
        return self._node("read", (index,), kind, (name, dtype), non_negative)

    # -- operations --

    def apply(self, op: str, *args: Node) -> Node:
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
    def _common_kind(op, values):
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
        if node.op == "argument":
            return node.attribute
        if node.op == "literal":
            return str(node.attribute)
        if node.op == "scalar":
            return f"scalar({node.attribute})"
        if node.op == "size":
            return "aux_size({}, {})".format(*node.attribute)
        if node.op == "read":
            name, dtype = node.attribute
            return f"{_READ[dtype]}({name}, {names[0]})"
        return _C[node.op].format(*names)

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


def derivatives(graph: Graph, node: Node, grad: Node) -> list[tuple[Node, Node]]:
    """(argument, its share of the gradient) for each argument through which a float gradient flows."""
    g, a = graph.apply, node.args
    zero = graph.cast(graph.literal(0), FLOAT)
    one = graph.cast(graph.literal(1), FLOAT)

    def of_the_less(a, b):  # equals share, as in torch
        half = g("div", grad, g("add", one, one))
        return g("where", g("lt", a, b), grad, g("where", g("lt", b, a), zero, half))

    def if_positive(x, value):
        return g("where", g("lt", zero, x), value, zero)

    rules = {
        "add": lambda: [(a[0], grad), (a[1], grad)],
        "sub": lambda: [(a[0], grad), (a[1], g("neg", grad))],
        "mul": lambda: [(a[0], g("mul", grad, a[1])), (a[1], g("mul", grad, a[0]))],
        "div": lambda: [(a[0], g("div", grad, a[1])), (a[1], g("neg", g("div", g("mul", grad, node), a[1])))],
        "neg": lambda: [(a[0], g("neg", grad))],
        "where": lambda: [(a[1], g("where", a[0], grad, zero)), (a[2], g("where", a[0], zero, grad))],
        "min": lambda: [(a[0], of_the_less(a[0], a[1])), (a[1], of_the_less(a[1], a[0]))],
        "max": lambda: [(a[0], of_the_less(a[1], a[0])), (a[1], of_the_less(a[0], a[1]))],
        "abs": lambda: [(a[0], g("where", g("lt", a[0], zero), g("neg", grad), if_positive(a[0], grad)))],
        "pow": lambda: [(a[0], g("mul", grad, g("mul", a[1], g("pow", a[0], g("sub", a[1], one))))),
                        (a[1], if_positive(a[0], g("mul", grad, g("mul", node, g("log", a[0])))))],
        "exp": lambda: [(a[0], g("mul", grad, node))],
        "exp2": lambda: [(a[0], g("mul", grad, g("mul", node, g("log", g("add", one, one)))))],
        "log": lambda: [(a[0], g("div", grad, a[0]))],
        "log2": lambda: [(a[0], g("div", grad, g("mul", a[0], g("log", g("add", one, one)))))],
        "sqrt": lambda: [(a[0], g("div", grad, g("add", node, node)))],
        "tanh": lambda: [(a[0], g("mul", grad, g("sub", one, g("mul", node, node))))],
        "sin": lambda: [(a[0], g("mul", grad, g("cos", a[0])))],
        "cos": lambda: [(a[0], g("neg", g("mul", grad, g("sin", a[0]))))],
    }
    if node.kind != FLOAT or node.op not in rules:
        return []
    return [(argument, share) for argument, share in rules[node.op]() if argument.kind == FLOAT]


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
