"""Attention as torch operators: forward and backward, with fake implementations and autograd.

An operator's schema takes tensors, numbers and strings only, and torch.compile takes a string as a constant. So what
shapes the computation travels as one JSON text (`Spec`), what may change from call to call as tensors and integers, and
a block mask as its number.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Optional, Sequence

import torch
from torch import Tensor

from .._call import AttentionOptions
from .._library import ffi, lib
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._plan import Plan, plan_of


@dataclasses.dataclass(frozen=True)
class Spec:
    """The constant part of a call: AttentionOptions without its tensors, and the names of the tensors beside it."""

    scale: Optional[str] = None  # floats by their hex(): torch.compile may hold them as symbols, hex() makes constants
    causal: Optional[str] = None
    window: Optional[tuple[int, int]] = None
    window_align: str = "top_left"
    softcap: str = "0x0p+0"
    score_text: str = ""
    score_grad_text: str = ""
    score_aux: tuple[str, ...] = ()
    mask_text: str = ""
    mask_aux: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # names of the operator's `others`, in order
    deterministic: bool = False
    backend: Optional[str] = None


@functools.lru_cache(maxsize=1024)
def _dump(**fields) -> str:
    return json.dumps(dataclasses.asdict(Spec(**fields)))


@torch.compiler.assume_constant_result
def spec_text(**fields) -> str:
    """A Spec as operators take it."""
    return _dump(**fields)


def _load(spec: str) -> Spec:
    fields = json.loads(spec)
    return Spec(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _modifier(kind: str, text: str, grad_text: str, names, aux, scalars: Optional[CTensor]) -> Optional[Modifier]:
    if not text:
        return None
    places = {f"scalar_{i}": 0.0 for i in range(scalars.pointer.shape[0])} if scalars else {}
    return Modifier(kind, text, grad_text=grad_text, aux=dict(zip(names, aux)), scalars=places)


def _params(sink: CTensor, score_aux: list[CTensor], others: list[CTensor], spec: str, max_seqlens, kept: list):
    """A saccade_attention_params; what it points to is appended to `kept`."""
    s = _load(spec)
    named = dict(zip(s.others, others))
    mask_aux = [named.pop(f"mask_aux.{name}") for name in s.mask_aux]
    scalars = {kind: named.pop(f"{kind}_scalars", None) for kind in ("score", "mask")}
    options = AttentionOptions(
        scale=None if s.scale is None else float.fromhex(s.scale), causal=s.causal, window=s.window,
        window_align=s.window_align, softcap=float.fromhex(s.softcap), sink=sink,
        max_seqlen_q=max_seqlens[0], max_seqlen_k=max_seqlens[1],
        score_mod=_modifier("score", s.score_text, s.score_grad_text, s.score_aux, score_aux, scalars["score"]),
        mask_mod=_modifier("mask", s.mask_text, "", s.mask_aux, mask_aux, scalars["mask"]),
        deterministic=s.deterministic, backend=s.backend, **named)  # fmt: skip
    params = options.to_c(kept)
    for kind, values in scalars.items():
        if values:  # to C these are no tensor, but a pointer among the params
            values.address = ffi.cast("uintptr_t *", ffi.addressof(params, f"{kind}_mod", "scalars"))
    return params


def _new_outputs(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(rows, dtype=torch.float32)


def _plan_forward(inputs, outputs, num_aux: int, spec: str, max_seqlens: tuple[int, int]) -> Plan:
    described = [CTensor(t) for t in (*inputs, *outputs)]
    q, k, v, sink, *rest, out, lse = described
    kept: list = [described]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, out, lse)), params)
    return Plan(lib.saccade_attention_forward, arguments, described, params, kept)


def _attention_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out and lse."""
    inputs, outputs = (q, k, v, sink, *score_aux, *others), _new_outputs(q, v)
    plan = plan_of(_plan_forward, inputs, outputs, len(score_aux), spec, tuple(max_seqlens))
    plan.run((*inputs, *outputs), block_mask)
    return outputs


attention_forward = torch.library.custom_op("saccade::attention_forward", _attention_forward, mutates_args=())


@attention_forward.register_fake
def _(q, k, v, *_):
    return _new_outputs(q, v)


def _new_gradients(q, k, v, sink, score_aux, aux_wanted) -> list[Tensor]:
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    if sink is not None:
        results.append(torch.empty_like(sink))
    return results + [torch.empty(score_aux[i].shape, dtype=torch.float32, device=q.device) for i in aux_wanted]


def _plan_backward(inputs, outputs, num_aux: int, spec: str, max_seqlens: tuple[int, int], aux_wanted) -> Plan:
    described = [CTensor(t) for t in (*inputs, *outputs)]
    dout, dlse, out, lse, q, k, v, sink, *rest = described[: len(inputs)]
    names = ["dq", "dk", "dv"] + ["dsink"] * (inputs[7] is not None)
    gradients = {name: t.pointer for name, t in zip(names, described[len(inputs):])}
    daux = {i: t.pointer for i, t in zip(aux_wanted, described[len(inputs) + len(names):])}
    c_daux = ffi.new("DLTensor *[]", [daux.get(i, ffi.NULL) for i in range(num_aux)]) if daux else ffi.NULL
    grads = ffi.new("saccade_attention_grads *", {
        "dout": dout.pointer, "dlse": dlse.pointer, "daux": c_daux, **gradients})  # fmt: skip
    kept: list = [described, c_daux]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, out, lse)), grads, params)
    return Plan(lib.saccade_attention_backward, arguments, described, params, kept)


def _attention_backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, aux_wanted: Sequence[int],
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> list[Tensor]:  # fmt: skip
    """dq, dk, dv; dsink if there is a sink; the fp32 gradients of the score_aux listed in aux_wanted."""
    inputs = (dout, dlse, out, lse, q, k, v, sink, *score_aux, *others)
    outputs = _new_gradients(q, k, v, sink, score_aux, aux_wanted)
    plan = plan_of(_plan_backward, inputs, outputs, len(score_aux), spec, tuple(max_seqlens), tuple(aux_wanted))
    plan.run((*inputs, *outputs), block_mask)
    return outputs


attention_backward = torch.library.custom_op("saccade::attention_backward", _attention_backward, mutates_args=())


@attention_backward.register_fake
def _(dout, dlse, out, lse, aux_wanted, q, k, v, sink, score_aux, *_):
    return _new_gradients(q, k, v, sink, score_aux, aux_wanted)


def dense_rows(gradient: Tensor) -> Tensor:
    """Autograd likes to hand over expanded scalars; the library wants the last dimension contiguous."""
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


def _setup_context(ctx, inputs, output):
    q, k, v, sink, score_aux, others, spec, max_seqlens, block_mask = inputs
    ctx.save_for_backward(q, k, v, sink, *output, *score_aux, *others)
    ctx.set_materialize_grads(False)
    ctx.num_aux, ctx.constants = len(score_aux), (spec, max_seqlens, block_mask)
    ctx.mask = BlockMask.numbered(block_mask)  # alive until the backward pass
    ctx.aux_wanted = [i for i, t in enumerate(score_aux) if t.requires_grad]


def _backward(ctx, dout, dlse, operator=attention_backward):
    q, k, v, sink, out, lse, *rest = ctx.saved_tensors
    score_aux, others = rest[: ctx.num_aux], rest[ctx.num_aux :]
    dout = torch.zeros_like(out) if dout is None else dense_rows(dout)
    dlse = None if dlse is None else dense_rows(dlse)
    dq, dk, dv, *rest = operator(dout, dlse, out, lse, ctx.aux_wanted, q, k, v, sink, score_aux, others,
                                           *ctx.constants)
    dsink = rest.pop(0) if sink is not None else None
    daux = [None] * ctx.num_aux
    for i, gradient in zip(ctx.aux_wanted, rest):
        daux[i] = gradient.to(score_aux[i].dtype)
    return dq, dk, dv, dsink, daux, [None] * len(others), None, None, None


attention_forward.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs more than a small attention. Sees no tensors inside lists."""

    @staticmethod
    def forward(ctx, *inputs):
        # In one piece: with a setup_context of its own, apply would bind the signature at every call.
        output = _attention_forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx, dout, dlse):
        gradients = _backward(ctx, dout, dlse, _attention_backward)
        return tuple(None if isinstance(g, list) else g for g in gradients)


def attention(q, k, v, sink, score_aux, others, spec, max_seqlens, block_mask):
    """attention_forward, by the shortest way that autograd, torch.compile and dispatch modes allow."""
    arguments = (q, k, v, sink, score_aux, others, spec, max_seqlens, block_mask)
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or type(q) is not Tensor:
        return attention_forward(*arguments)
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (q, k, v, sink, *score_aux)):
        return _attention_forward(*arguments)
    return attention_forward(*arguments) if score_aux else _Eager.apply(*arguments)
