"""Attention as torch operators: forward and backward, with fake implementations and autograd.

An operator's schema takes tensors, numbers and strings only, and torch.compile takes a string as a constant. So what
shapes the computation travels as one JSON text (`Spec`), what may change from call to call as tensors and integers, and
a block mask as its number.
"""

from __future__ import annotations

import functools
import json
from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from .._call import AttentionOptions
from .._library import ffi, lib
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._plan import Plan, plan_of


class Spec(NamedTuple):
    """The constant part of a call: AttentionOptions without its tensors, and the names of the tensors beside it."""

    scale: Optional[float] = None
    causal: Optional[str] = None
    window: Optional[tuple[int, int]] = None
    window_align: str = "top_left"
    softcap: float = 0.0
    score_text: str = ""
    score_grad_text: str = ""
    score_aux: tuple[str, ...] = ()
    mask_text: str = ""
    mask_aux: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # names of the operator's `others`, in order
    deterministic: bool = False
    backend: Optional[str] = None


@torch.compiler.assume_constant_result
def _dump(*spec) -> str:
    return json.dumps(spec)


def spec_text(spec: Spec) -> str:
    """A Spec as operators take it. Floats by their hex(): torch.compile may hold them as symbols, hex() makes
    constants of them."""
    scale = None if spec.scale is None else float(spec.scale).hex()
    return _dump(*spec._replace(scale=scale, softcap=float(spec.softcap).hex()))


@functools.lru_cache(maxsize=1024)
def _load(text: str) -> Spec:
    spec = Spec(*(tuple(value) if isinstance(value, list) else value for value in json.loads(text)))
    scale = None if spec.scale is None else float.fromhex(spec.scale)
    return spec._replace(scale=scale, softcap=float.fromhex(spec.softcap))


def _modifier(kind: str, text: str, grad_text: str, names, aux, scalars: Optional[CTensor]) -> Optional[Modifier]:
    if not text:
        return None
    places = {f"scalar_{i}": 0.0 for i in range(scalars.pointer.shape[0])} if scalars else {}
    return Modifier(kind, text, grad_text=grad_text, aux=dict(zip(names, aux)), scalars=places)


def _params(sink: CTensor, score_aux: list[CTensor], others: list[CTensor], s: Spec, max_seqlens, kept: list):
    """A saccade_attention_params; what it points to is appended to `kept`."""
    named = dict(zip(s.others, others))
    mask_aux = [named.pop(f"mask_aux.{name}") for name in s.mask_aux]
    scalars = {kind: named.pop(f"{kind}_scalars", None) for kind in ("score", "mask")}
    options = AttentionOptions(
        scale=s.scale, causal=s.causal, window=s.window, window_align=s.window_align, softcap=s.softcap, sink=sink,
        max_seqlen_q=max_seqlens[0], max_seqlen_k=max_seqlens[1],
        score_mod=_modifier("score", s.score_text, s.score_grad_text, s.score_aux, score_aux, scalars["score"]),
        mask_mod=_modifier("mask", s.mask_text, "", s.mask_aux, mask_aux, scalars["mask"]),
        deterministic=s.deterministic, backend=s.backend, **named)  # fmt: skip
    params = options.to_c(kept)
    for kind, values in scalars.items():
        if values:  # to C these are no tensor, but a pointer among the params
            values.address = ffi.cast("uintptr_t *", ffi.addressof(params, f"{kind}_mod", "scalars"))
    return params


# -- the calls --


def _new_outputs(q: Tensor, v: Tensor, with_lse: bool = True) -> tuple[Tensor, Optional[Tensor]]:
    """out is laid out in memory as q is, where it has its shape."""
    out = torch.empty_like(q) if v.shape[-1] == q.shape[-1] else q.new_empty((*q.shape[:-1], v.shape[-1]))
    if not with_lse:
        return out, None
    rows = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    return out, q.new_empty(rows, dtype=torch.float32)


def _plan_forward(inputs, outputs, num_aux: int, spec: Spec, max_seqlens: tuple[int, int], with_lse: bool) -> Plan:
    described = [CTensor(t) for t in (*inputs, *outputs)]
    q, k, v, sink, *rest, out, lse = described
    kept: list = [described]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, out, lse)), params)
    return Plan(lib.saccade_attention_forward, arguments, described, params, kept)


def _forward(q, k, v, sink, score_aux, others, spec: Spec, max_seqlens, mask: Optional[BlockMask], with_lse=True):
    """out and, if wanted, lse."""
    inputs, outputs = (q, k, v, sink, *score_aux, *others), _new_outputs(q, v, with_lse)
    plan = plan_of(_plan_forward, inputs, outputs, len(score_aux), spec, max_seqlens, with_lse)
    plan.run(q.device, (*inputs, *outputs), mask)
    return outputs


def _new_gradients(q, k, v, sink, score_aux, aux_wanted) -> list[Tensor]:
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    if sink is not None:
        results.append(torch.empty_like(sink))
    return results + [torch.empty(score_aux[i].shape, dtype=torch.float32, device=q.device) for i in aux_wanted]


def _plan_backward(inputs, outputs, num_aux: int, aux_wanted, spec: Spec, max_seqlens: tuple[int, int]) -> Plan:
    described = [CTensor(t) for t in (*inputs, *outputs)]
    dout, dlse, out, lse, q, k, v, sink, *rest = described[: len(inputs)]
    names = ["dq", "dk", "dv", *(["dsink"] if sink.pointer else [])]
    gradients = [t.pointer for t in described[len(inputs) :]]
    daux = dict(zip(aux_wanted, gradients[len(names) :]))
    c_daux = ffi.new("DLTensor *[]", [daux.get(i, ffi.NULL) for i in range(num_aux)]) if daux else ffi.NULL
    fields = {"dout": dout.pointer, "dlse": dlse.pointer, "daux": c_daux, **dict(zip(names, gradients))}
    grads, kept = ffi.new("saccade_attention_grads *", fields), [described, c_daux]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, out, lse)), grads, params)
    return Plan(lib.saccade_attention_backward, arguments, described, params, kept)


def _backward(dout, dlse, out, lse, aux_wanted, q, k, v, sink, score_aux, others, spec: Spec, max_seqlens,
              mask: Optional[BlockMask]) -> list[Tensor]:
    """dq, dk, dv; dsink if there is a sink; the fp32 gradients of the score_aux listed in aux_wanted."""
    inputs = (dout, dlse, out, lse, q, k, v, sink, *score_aux, *others)
    outputs = _new_gradients(q, k, v, sink, score_aux, aux_wanted)
    plan = plan_of(_plan_backward, inputs, outputs, len(score_aux), tuple(aux_wanted), spec, max_seqlens)
    plan.run(q.device, (*inputs, *outputs), mask)
    return outputs


# -- as operators --


@torch.library.custom_op("saccade::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    constants = _load(spec), tuple(max_seqlens), BlockMask.numbered(block_mask)
    return _forward(q, k, v, sink, score_aux, others, *constants)


@attention_forward.register_fake
def _(q, k, v, *_):
    return _new_outputs(q, v)


@torch.library.custom_op("saccade::attention_backward", mutates_args=())
def attention_backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, aux_wanted: Sequence[int],
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> list[Tensor]:  # fmt: skip
    constants = _load(spec), tuple(max_seqlens), BlockMask.numbered(block_mask)
    return _backward(dout, dlse, out, lse, aux_wanted, q, k, v, sink, score_aux, others, *constants)


@attention_backward.register_fake
def _(dout, dlse, out, lse, aux_wanted, q, k, v, sink, score_aux, *_):
    return _new_gradients(q, k, v, sink, score_aux, aux_wanted)


# -- with autograd --


def dense_rows(gradient: Tensor) -> Tensor:
    """Autograd likes to hand over expanded scalars; the library wants the last dimension contiguous."""
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


def _save(ctx, inputs, output):
    q, k, v, sink, score_aux, others, *ctx.constants = inputs
    ctx.save_for_backward(q, k, v, sink, *output, *score_aux, *others)
    ctx.set_materialize_grads(False)
    ctx.num_aux = len(score_aux)
    ctx.aux_wanted = [i for i, t in enumerate(score_aux) if t.requires_grad]


def _gradients(ctx, dout, dlse, backward):
    """One for each argument of the operator."""
    q, k, v, sink, out, lse, *rest = ctx.saved_tensors
    score_aux, others = rest[: ctx.num_aux], rest[ctx.num_aux :]
    dout = torch.zeros_like(out) if dout is None else dense_rows(dout)
    dlse = None if dlse is None else dense_rows(dlse)
    dq, dk, dv, *rest = backward(
        dout, dlse, out, lse, ctx.aux_wanted, q, k, v, sink, score_aux, others, *ctx.constants)  # fmt: skip
    dsink = rest.pop(0) if sink is not None else None
    daux = [None] * len(score_aux)
    for i, gradient in zip(ctx.aux_wanted, rest):
        daux[i] = gradient.to(score_aux[i].dtype)
    return dq, dk, dv, dsink, daux, [None] * len(others), None, None, None


def _setup_context(ctx, inputs, output):
    _save(ctx, inputs, output)
    ctx.mask = BlockMask.numbered(inputs[-1])  # alive until the backward pass


_operators_gradients = functools.partial(_gradients, backward=attention_backward)
attention_forward.register_autograd(_operators_gradients, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs more than a small attention, and without score_aux: a Function sees
    no tensors inside others of its arguments."""

    @staticmethod
    def forward(ctx, q, k, v, sink, rest):
        # In one piece: with a setup_context of its own, apply would bind the signature at every call. And what are no
        # inputs in one argument, since each costs.
        others, *constants, with_lse = rest
        out, lse = _forward(q, k, v, sink, (), others, *constants)
        _save(ctx, (q, k, v, sink, (), others, *constants), (out, lse))
        return (out, lse) if with_lse else out

    @staticmethod
    def backward(ctx, dout, dlse=None):
        dq, dk, dv, dsink, *_ = _gradients(ctx, dout, dlse, _backward)
        return dq, dk, dv, dsink, None


def attention(q, k, v, sink, score_aux, others, spec: Spec, max_seqlens, mask: Optional[BlockMask], with_lse: bool):
    """out and, if wanted, lse, by the shortest way that autograd, torch.compile and dispatch modes allow."""
    tensors, constants = (q, k, v, sink, score_aux, others), (spec, max_seqlens, mask)
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or type(q) is not Tensor
    asked = [t for t in (q, k, v, sink, *score_aux) if t is not None and t.requires_grad]
    differentiated = asked and torch.is_grad_enabled()
    if not watched and not differentiated:
        return _forward(*tensors, *constants, with_lse)
    if watched or score_aux:
        return attention_forward(*tensors, spec_text(spec), max_seqlens, mask.number if mask else 0)
    result = _Eager.apply(q, k, v, sink, (others, *constants, with_lse))
    return result if with_lse else (result, None)
