"""score_mod and mask_mod as C text: one text for CPU and GPU, with the arrays and numbers that it reads."""

from __future__ import annotations

import functools
import numbers
from typing import Any, Mapping

from ._context import context
from ._library import CData, check, ffi, lib
from ._tensor import Tensor, dtype_code, dtype_name, pointers

_KINDS = {"score": lib.SACCADE_SCORE_KIND, "mask": lib.SACCADE_MASK_KIND}


@functools.lru_cache(maxsize=1024)
def handle(kind: str, text: str, grad_text: str, aux: tuple[tuple[str, str], ...], scalars: tuple[str, ...]) -> CData:
    """The saccade_modifier of a text; aux are (name, dtype) pairs. Equal texts share one, compiled once."""
    kept = [ffi.new("char[]", s.encode()) for s in (text, grad_text, *(n for n, _ in aux), *scalars)]
    c_text, c_grad_text, *names = kept
    declarations = ffi.new("saccade_aux_decl[]", [(names[i], dtype_code(d)) for i, (_, d) in enumerate(aux)])
    scalar_names = ffi.new("const char *[]", names[len(aux):])
    params = ffi.new("saccade_modifier_params *", {
        "kind": _KINDS[kind], "text": c_text, "grad_text": c_grad_text if grad_text else ffi.NULL,
        "num_aux": len(aux), "aux": declarations, "num_scalars": len(scalars), "scalars": scalar_names})  # fmt: skip
    created = ffi.new("saccade_modifier **")
    check(lib.saccade_modifier_create(context(), created, params))
    return ffi.gc(created[0], lib.saccade_modifier_destroy)


class Modifier:
    """A modifier and the values it reads.

    kind: "score" or "mask". text: an expression or a body in braces, see saccade/modifier.h. aux: arrays by the name
    that the text reads them under, aux_f32(name, i); scalars: floats by name, scalar(name). Values may change from
    call to call (`with_values`) without compiling anything again.
    """

    def __init__(self, kind: str, text: str, *, grad_text: str = "", aux: Mapping[str, Any] | None = None,
                 scalars: Mapping[str, float] | None = None) -> None:
        if kind not in _KINDS:
            raise ValueError(f'kind: "{kind}" is neither "score" nor "mask"')
        for part in (text, grad_text):
            if not isinstance(part, str):
                raise TypeError(f"{kind}_mod: C text is needed, not a {type(part).__name__}")
        self.kind, self.text, self.grad_text = kind, text, grad_text
        self.aux, self.scalars = dict(aux or {}), dict(scalars or {})

    def with_values(self, aux: Mapping[str, Any] | None = None, scalars: Mapping[str, float] | None = None) -> Modifier:
        """The same text over other values."""
        return Modifier(self.kind, self.text, grad_text=self.grad_text, aux={**self.aux, **(aux or {})},
                        scalars={**self.scalars, **(scalars or {})})

    def handle(self) -> CData:
        declared = tuple((name, dtype_name(array)) for name, array in self.aux.items())
        return handle(self.kind, self.text, self.grad_text, declared, tuple(self.scalars))

    def bind(self, kept: list[Any]) -> dict[str, CData]:
        """A saccade_bound_modifier initialiser; what it points to is appended to `kept`."""
        tensors = [Tensor.of(array, f"{self.kind}_mod: {name}") for name, array in self.aux.items()]
        bound = {"modifier": self.handle(), "aux": pointers(tensors),
                 "scalars": ffi.new("float[]", list(self.scalars.values()))}
        kept += [tensors, bound]
        return bound


def as_modifier(kind: str, modifier: Modifier | str) -> Modifier:
    """kind: "score" or "mask"; a text that reads nothing beside its arguments will do."""
    if isinstance(modifier, str):
        return Modifier(kind, modifier)
    if not isinstance(modifier, Modifier):
        raise TypeError(f"{kind}_mod: C text, or what saccade.{kind}_mod makes of it, is needed, not a "
                        f"{type(modifier).__name__} (Python functions are taken by saccade.torch)")
    if modifier.kind != kind:
        raise ValueError(f"{kind}_mod: is a {modifier.kind}_mod")
    return modifier


def score_mod(text: str, *, grad_text: str = "", **values: Any) -> Modifier:
    """A score_mod from C text over `score b h q_idx kv_idx`, which gives the new score; grad_text, over `grad score b h
    q_idx kv_idx`, gives dL/d score. Keyword values that are numbers become scalars, the others arrays: float32,
    float16, bfloat16, int32, int64, uint8, row-major, up to 4 dimensions. The language: saccade/modifier.h."""
    return Modifier("score", text, grad_text=grad_text, **_split(values))


def mask_mod(text: str, **values: Any) -> Modifier:
    """A mask_mod from C text over `b h q_idx kv_idx`, true where the query sees the key; values as of score_mod."""
    return Modifier("mask", text, **_split(values))


def _split(values: dict[str, Any]) -> dict[str, Any]:
    scalars = {name: float(v) for name, v in values.items() if isinstance(v, numbers.Real)}  # NumPy's too
    return {"aux": {name: v for name, v in values.items() if name not in scalars}, "scalars": scalars}
