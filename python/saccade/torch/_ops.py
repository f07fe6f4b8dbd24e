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
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from .._call import AttentionOptions
from .._library import ffi, lib
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._checks import no_second_gradients, refuse_transforms
from ._masks import import_lists
from ._plan import Plan, plan_of


class Spec(NamedTuple):
    """The constant part of a call: AttentionOptions without its tensors, and the names of the tensors beside it."""

    scale: Optional[float] = None
    causal: Optional[str] = None
    window: Optional[tuple[int, int]] = None  # aligned to the bottom right
    softcap: float = 0.0
    deterministic: bool = False
    backend: Optional[str] = None
    heads_first: bool = False  # q, k, v and out are (B, H, N, D)
    # What follows belongs to the modifiers and tensors of a call.
    score_text: str = ""
    score_grad_text: str = ""
    score_aux: tuple[str, ...] = ()
    score_scalars: tuple[str, ...] = ()
    mask_text: str = ""
    mask_aux: tuple[str, ...] = ()
    mask_scalars: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # names of the operator's `others`, in order
    list_blocks: tuple[int, ...] = ()  # the block size of PyTorch's lists, which then end the operator's `others`


NUM_OPTIONS = Spec._fields.index("score_text")


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


def _modifier(kind: str, text: str, grad_text: str, names, aux, scalars: Sequence[str]) -> Optional[Modifier]:
    if not text:
        return None
    return Modifier(
        kind, text, grad_text=grad_text, aux=dict(zip(names, aux)), scalars=dict.fromkeys(scalars, 0.0))  # fmt: skip


def _params(sink: CTensor, score_aux: list[CTensor], others: list[CTensor], s: Spec, max_seqlens, kept: list):
    """A saccade_attention_params; what it points to is appended to `kept`."""
    named = dict(zip(s.others, others))
    mask_aux = [named.pop(f"mask_aux.{name}") for name in s.mask_aux]
    scalars = {kind: named.pop(f"{kind}_scalars", None) for kind in ("score", "mask")}
    options = AttentionOptions(
        scale=s.scale, causal=s.causal, window=s.window, window_align="bottom_right", softcap=s.softcap, sink=sink,
        max_seqlen_q=max_seqlens[0], max_seqlen_k=max_seqlens[1],
        score_mod=_modifier("score", s.score_text, s.score_grad_text, s.score_aux, score_aux, s.score_scalars),
        mask_mod=_modifier("mask", s.mask_text, "", s.mask_aux, mask_aux, s.mask_scalars),
        deterministic=s.deterministic, backend=s.backend, **named)  # fmt: skip
    params = options.to_c(kept)
    for kind, values in scalars.items():
        if values:  # to C these are no tensor, but a pointer among the params
            values.address = ffi.cast("uintptr_t *", ffi.addressof(params, f"{kind}_mod", "scalars"))
    return params


# -- the calls --


def _new_outputs(q: Tensor, v: Tensor, heads_first: bool, with_lse: bool = True) -> tuple[Tensor, Optional[Tensor]]:
    """out is laid out in memory as q is, where it has its shape."""
    out = torch.empty_like(q) if v.shape[-1] == q.shape[-1] else q.new_empty((*q.shape[:-1], v.shape[-1]))
    if not with_lse:
        return out, None
    *batch, rows, heads, _ = q.shape
    return out, q.new_empty((*batch, rows, heads) if heads_first else (*batch, heads, rows), dtype=torch.float32)


def _describe(tensors: Sequence[Optional[Tensor]], heads_first: bool) -> list[CTensor]:
    """q, k, v and what has their shapes, as the library takes them."""
    return [CTensor(t.transpose(1, 2) if heads_first and t is not None else t) for t in tensors]


def _plan_forward(inputs, outputs, num_aux: int, spec: Spec, max_seqlens: tuple[int, int], with_lse: bool) -> Plan:
    out, lse = outputs
    q, k, v, c_out = _describe((*inputs[:3], out), spec.heads_first)
    sink, *rest, c_lse = (CTensor(t) for t in (*inputs[3:], lse))
    described = [q, k, v, sink, *rest, c_out, c_lse]
    kept: list = [described]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, c_out, c_lse)), params)
    note = " (tensors are (B, N, H, D) here)" if spec.heads_first else ""
    return Plan(lib.saccade_attention_forward, arguments, described, params, kept, note)


def _forward(q, k, v, sink, score_aux, others, spec: Spec, max_seqlens, mask: Optional[BlockMask], with_lse=True):
    """out and, if wanted, lse."""
    inputs, outputs = (q, k, v, sink, *score_aux, *others), _new_outputs(q, v, spec.heads_first, with_lse)
    plan = plan_of(_plan_forward, inputs, outputs, (len(score_aux), spec, max_seqlens, with_lse))
    plan.run(q.get_device(), (*inputs, *outputs), mask)
    return outputs


# Gradients are asked for by the places of their tensors among q, k, v, sink and the score_aux.
_NUM_QKV, _FIRST_AUX = 3, 4


def _new_gradients(q, k, v, sink, score_aux, wanted) -> list[Tensor]:
    tensors = (q, k, v, sink, *score_aux)
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) if i < _FIRST_AUX
            else torch.empty(tensors[i].shape, dtype=torch.float32, device=q.device) for i in wanted]


def _plan_backward(inputs, outputs, num_aux: int, wanted, spec: Spec, max_seqlens: tuple[int, int]) -> Plan:
    dout, dlse, out, lse, q, k, v, *rest = inputs
    num_dense = sum(i < _NUM_QKV for i in wanted)
    dout, out, q, k, v, *dense = _describe((dout, out, q, k, v, *outputs[:num_dense]), spec.heads_first)
    dlse, lse, sink, *rest = (CTensor(t) for t in (dlse, lse, *rest))
    gradients = dense + [CTensor(t) for t in outputs[num_dense:]]
    by_place = {place: gradient.pointer for place, gradient in zip(wanted, gradients)}
    fields = {name: by_place[i] for i, name in enumerate(("dq", "dk", "dv", "dsink")) if i in by_place}
    fields.update(dout=dout.pointer, dlse=dlse.pointer)
    if max(wanted, default=0) >= _FIRST_AUX:
        fields["daux"] = ffi.new("DLTensor *[]", [by_place.get(_FIRST_AUX + i, ffi.NULL) for i in range(num_aux)])
    grads = ffi.new("saccade_attention_grads *", fields)
    described = [dout, dlse, out, lse, q, k, v, sink, *rest, *gradients]
    kept = [described, fields]
    params = _params(sink, rest[:num_aux], rest[num_aux:], spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (q, k, v, out, lse)), grads, params)
    return Plan(lib.saccade_attention_backward, arguments, described, params, kept)


def _backward(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, others, spec: Spec, max_seqlens,
              mask: Optional[BlockMask]) -> list[Tensor]:
    """The gradients that are wanted, in the order of their places; those of score_aux are fp32."""
    inputs = (dout, dlse, out, lse, q, k, v, sink, *score_aux, *others)
    outputs = _new_gradients(q, k, v, sink, score_aux, wanted)
    plan = plan_of(_plan_backward, inputs, outputs, (len(score_aux), tuple(wanted), spec, max_seqlens))
    plan.run(q.get_device(), (*inputs, *outputs), mask)
    return outputs


# -- as operators --


def _operators_mask(q: Tensor, k: Tensor, others: Sequence[Tensor], s: Spec, number: int) -> Optional[BlockMask]:
    if not s.list_blocks:
        return BlockMask.numbered(number)
    rows = 2 if s.heads_first else 1
    return import_lists(others[len(s.others) :], q.shape[rows], k.shape[rows], s.list_blocks)


@torch.library.custom_op("saccade::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    s = _load(spec)
    mask = _operators_mask(q, k, others, s, block_mask)
    return _forward(q, k, v, sink, score_aux, others[: len(s.others)], s, tuple(max_seqlens), mask)


@attention_forward.register_fake
def _(q, k, v, sink, score_aux, others, spec, *_):
    return _new_outputs(q, v, _load(spec).heads_first)


@torch.library.custom_op("saccade::attention_backward", mutates_args=())
def attention_backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, wanted: Sequence[int],
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> list[Tensor]:  # fmt: skip
    s = _load(spec)
    constants = s, tuple(max_seqlens), _operators_mask(q, k, others, s, block_mask)
    return _backward(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, others[: len(s.others)], *constants)


@attention_backward.register_fake
def _(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, *_):
    return _new_gradients(q, k, v, sink, score_aux, wanted)


# Floating point operations as torch.utils.flop_counter counts those of its own attention: every pair, masked or not.


def _products(q, k, spec: str, max_seqlens) -> int:
    """Multiplications and additions of a product over one dimension, for each pair of a query and a key."""
    *batch, rows, heads, _ = q
    if batch:
        queries, keys, heads = (q[2], k[2], q[1]) if _load(spec).heads_first else (rows, k[1], heads)
        return 2 * batch[0] * heads * queries * keys
    return 2 * heads * rows * (max_seqlens[1] or k[0])


@register_flop_formula(torch.ops.saccade.attention_forward)
def _(q, k, v, sink, score_aux, others, spec, max_seqlens, *_, **__) -> int:
    return _products(q, k, spec, max_seqlens) * (q[-1] + v[-1])


@register_flop_formula(torch.ops.saccade.attention_backward)
def _(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, others, spec, max_seqlens, *_, **__) -> int:
    return _products(q, k, spec, max_seqlens) * (3 * q[-1] + 2 * v[-1])


# -- with autograd --


def dense_rows(gradient: Tensor) -> Tensor:
    """Autograd likes to hand over expanded scalars; the library wants the last dimension contiguous."""
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


def _gradients(ctx, constants, num_aux: int, wanted, dout, dlse, backward) -> list[Optional[Tensor]]:
    """Of q, k, v, sink and the score_aux; None where not wanted."""
    q, k, v, sink, out, lse, *rest = ctx.saved_tensors
    score_aux, others = rest[:num_aux], rest[num_aux:]
    dout = torch.zeros_like(out) if dout is None else dense_rows(dout)
    dlse = None if dlse is None else dense_rows(dlse)
    results: list[Optional[Tensor]] = [None] * (_FIRST_AUX + num_aux)
    gradients = backward(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, others, *constants)
    for place, gradient in zip(wanted, gradients):
        results[place] = gradient if place < _FIRST_AUX else gradient.to(score_aux[place - _FIRST_AUX].dtype)
    return results


def _setup_context(ctx, inputs, output):
    q, k, v, sink, score_aux, others, *ctx.constants = inputs
    ctx.save_for_backward(q, k, v, sink, *output, *score_aux, *others)
    ctx.set_materialize_grads(False)
    ctx.num_aux, ctx.num_others = len(score_aux), len(others)
    ctx.wanted = [i for i, t in enumerate((q, k, v, sink, *score_aux)) if t is not None and t.requires_grad]
    ctx.mask = BlockMask.numbered(inputs[-1])  # alive until the backward pass


def _operators_gradients(ctx, dout, dlse):
    results = _gradients(ctx, ctx.constants, ctx.num_aux, ctx.wanted, dout, dlse, attention_backward)
    return *results[:_FIRST_AUX], results[_FIRST_AUX:], [None] * ctx.num_others, None, None, None


attention_forward.register_autograd(_operators_gradients, setup_context=_setup_context)
attention_backward.register_autograd(no_second_gradients)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs more than a small attention."""

    @staticmethod
    def forward(ctx, q, k, v, sink, call, *score_aux):
        # In one piece: with a setup_context of its own, apply would bind the signature at every call. And what are no
        # inputs in one argument, since each costs.
        others, spec, max_seqlens, mask, with_lse = call
        out, lse = _forward(q, k, v, sink, score_aux, others, spec, max_seqlens, mask)
        ctx.save_for_backward(q, k, v, sink, out, lse, *score_aux, *others)
        ctx.set_materialize_grads(False)
        ctx.call = call
        return (out, lse) if with_lse else out

    @staticmethod
    def backward(ctx, dout, dlse=None):
        _, spec, max_seqlens, mask, _ = ctx.call
        needed = ctx.needs_input_grad[:_FIRST_AUX] + ctx.needs_input_grad[_FIRST_AUX + 1 :]  # without that of `call`
        wanted = [i for i, needs in enumerate(needed) if needs]
        if torch.is_grad_enabled():  # somebody wants to differentiate the gradients: the operator says that he cannot
            backward, constants = attention_backward, (spec_text(spec), max_seqlens, mask.number if mask else 0)
        else:
            backward, constants = _backward, (spec, max_seqlens, mask)
        results = _gradients(ctx, constants, len(spec.score_aux), wanted, dout, dlse, backward)
        return *results[:_FIRST_AUX], None, *results[_FIRST_AUX:]


# Without torch's own apply, which looks for the wrappers of torch.func among the arguments: `attention` knows that
# there are none.
_apply_eager = super(torch.autograd.Function, _Eager).apply


def attention(q, k, v, sink, score_aux, others, spec: Spec, max_seqlens, mask: Optional[BlockMask], with_lse: bool):
    """out and, if wanted, lse, by the shortest way that autograd, torch.compile and dispatch modes allow."""
    compiling = torch.compiler.is_compiling()
    if not compiling and (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):
        refuse_transforms(q, k, v, sink, *score_aux)
    if (compiling or type(q) is not Tensor or q.is_meta or torch._C._len_torch_dispatch_stack()
            or torch._C._is_tracing()):  # torch.jit.trace  # fmt: skip
        number = mask.number if mask else 0
        return attention_forward(q, k, v, sink, score_aux, others, spec_text(spec), max_seqlens, number)
    if q.is_neg() or k.is_neg() or v.is_neg():  # views whose memory is not what they are; the dispatcher would know
        q, k, v = (t.resolve_neg() for t in (q, k, v))
    asked = (q.requires_grad or k.requires_grad or v.requires_grad or sink is not None and sink.requires_grad
             or score_aux and any(t.requires_grad for t in score_aux))  # fmt: skip
    if not asked or not torch.is_grad_enabled():
        return _forward(q, k, v, sink, score_aux, others, spec, max_seqlens, mask, with_lse)
    result = _apply_eager(q, k, v, sink, (others, spec, max_seqlens, mask, with_lse), *score_aux)
    return result if with_lse else (result, None)
