"""Attention as torch operators: forward and backward, with fake implementations and autograd.

An operator's schema takes tensors, numbers and strings only, and torch.compile takes a string as a constant. So what
shapes the computation travels as one JSON text (of a `Spec`), what may change from call to call as tensors and
integers, and a block mask as its number.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.utils.flop_counter import register_flop_formula

from .._call import AttentionOptions
from .._library import CData, ffi, lib
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._checks import no_second_gradients, refuse_transforms
from ._masks import LISTS, build_from_mod, import_lists, new_lists
from ._plan import Plan, Shape, plan_of
from ._spec import Program, Spec, load, spec_text

Tensors = Sequence[Tensor]
Lengths = tuple[int, int]


def _modifier(kind: str, program: Program, aux: Sequence[CTensor]) -> Optional[Modifier]:
    if not program.text:
        return None
    return Modifier(kind, program.text, grad_text=program.grad_text, aux=dict(zip(program.aux, aux)),
                    scalars=dict.fromkeys(program.scalars, 0.0))  # fmt: skip


def _params(others: list[CTensor], has_sink: bool, num_aux: int, spec: Spec, max_seqlens: Lengths,
            kept: list[Any]) -> CData:
    """A saccade_attention_params; what it points to is appended to `kept`. others: see _plan_forward."""
    sink, score_aux = others[0] if has_sink else None, others[has_sink : has_sink + num_aux]
    named: dict[str, Any] = dict(zip(spec.others, others[has_sink + num_aux :]))
    mask_aux = [named.pop(f"mask_aux.{name}") for name in spec.mask.aux]
    scalars = {kind: named.pop(f"{kind}_scalars", None) for kind in ("score", "mask")}
    o = spec.options
    options = AttentionOptions(
        scale=o.scale, causal=o.causal, window=o.window, window_align="bottom_right", softcap=o.softcap, sink=sink,
        max_seqlen_q=max_seqlens[0], max_seqlen_k=max_seqlens[1],
        score_mod=_modifier("score", spec.score, score_aux), mask_mod=_modifier("mask", spec.mask, mask_aux),
        deterministic=o.deterministic, backend=o.backend, **named)  # fmt: skip
    params = options.to_c(kept)
    for kind, values in scalars.items():
        if values:  # to C these are no tensor, but a pointer among the params
            values.address = ffi.cast("uintptr_t *", ffi.addressof(params, f"{kind}_mod", "scalars"))
    return params


# -- the calls --


def _output_shapes(q: Tensor, v: Tensor, heads_first: bool) -> tuple[Optional[Shape], Shape]:
    """Of out, None where it is laid out in memory as q is, since it has its shape; and of lse."""
    *batch, rows, heads, head_dim = q.shape
    out = None if v.shape[-1] == head_dim else (*q.shape[:-1], v.shape[-1])
    return out, (*batch, rows, heads) if heads_first else (*batch, heads, rows)


def _new_outputs(q: Tensor, out: Optional[Shape], lse: Optional[Shape]) -> tuple[Tensor, Optional[Tensor]]:
    return (torch.empty_like(q) if out is None else q.new_empty(out),
            None if lse is None else q.new_empty(*lse, dtype=torch.float32))  # fmt: skip


def _describe(tensors: Sequence[Tensor], heads_first: bool, names: Sequence[str]) -> list[CTensor]:
    """q, k, v and what has their shapes, as the library takes them."""
    return [CTensor.of(t.transpose(1, 2) if heads_first else t, name) for t, name in zip(tensors, names)]


def _plan_forward(q: Tensor, k: Tensor, v: Tensor, others: Tensors, has_sink: bool, num_aux: int, spec: Spec,
                  max_seqlens: Lengths, with_lse: bool) -> Plan:
    """others: the sink if there is one, the score_aux, and what the operators call others."""
    heads_first = spec.options.heads_first
    out_shape, lse_shape = _output_shapes(q, v, heads_first)
    shapes = out_shape, lse_shape if with_lse else None
    inputs = _describe((q, k, v), heads_first, "qkv")
    out, lse = _new_outputs(q, *shapes)
    (c_out,) = _describe((out,), heads_first, ("out",))
    names = ("learnable_sink",) * has_sink + spec.score.aux + spec.others
    rest, c_lse = [CTensor.of(t, name) for t, name in zip(others, names)], CTensor(lse)
    described = [*inputs, *rest, c_out, c_lse][: None if with_lse else -1]
    kept: list[Any] = [described]
    params = _params(rest, has_sink, num_aux, spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (*inputs, c_out, c_lse)), params)
    note = " (tensors are (B, N, H, D) here)" if heads_first else ""
    return Plan(lib.saccade_attention_forward, arguments, described, params, kept, shapes, note)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Tensors, others: Tensors, spec: Spec,
    max_seqlens: Lengths, mask: Optional[BlockMask], with_lse: bool = True,
) -> tuple[Tensor, Optional[Tensor]]:  # fmt: skip
    """out and, if wanted, lse."""
    others = (*score_aux, *others) if sink is None else (sink, *score_aux, *others)
    constants = sink is not None, len(score_aux), spec, max_seqlens, with_lse
    plan = plan_of(_plan_forward, q, k, v, others, spec.num_scalars, constants)
    out, lse = _new_outputs(q, *plan.shapes)
    plan.run(q.get_device(), (q, k, v, *others, out, lse), mask)
    return out, lse


# Gradients are asked for by the places of their tensors among q, k, v, sink and the score_aux.
_NUM_QKV, _FIRST_AUX = 3, 4


def _new_gradients(q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Tensors,
                   wanted: Sequence[int]) -> list[Tensor]:
    tensors: tuple[Any, ...] = (q, k, v, sink, *score_aux)
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) if i < _FIRST_AUX
            else torch.empty(tensors[i].shape, dtype=torch.float32, device=q.device) for i in wanted]


def _plan_backward(q: Tensor, k: Tensor, v: Tensor, others: Tensors, wanted: Sequence[int], has_dlse: bool,
                   has_sink: bool, num_aux: int, spec: Spec, max_seqlens: Lengths) -> Plan:
    """others: dout, out, lse, dlse if there is one, and then those of the forward pass."""
    first_aux = 3 + has_dlse + has_sink
    sink = others[first_aux - 1] if has_sink else None
    outputs = _new_gradients(q, k, v, sink, others[first_aux : first_aux + num_aux], wanted)
    dense_names = [("dq", "dk", "dv")[i] for i in wanted if i < _NUM_QKV]
    num_dense, names = len(dense_names), ("dout", "out", "q", "k", "v", *dense_names)
    dout, out, *inputs_and_dense = _describe(
        (*others[:2], q, k, v, *outputs[:num_dense]), spec.options.heads_first, names)  # fmt: skip
    inputs, gradients = inputs_and_dense[:3], inputs_and_dense[3:] + [CTensor(t) for t in outputs[num_dense:]]
    lse, *rest = (CTensor(t) for t in others[2:])
    by_place = {place: gradient.pointer for place, gradient in zip(wanted, gradients)}
    fields = {name: by_place[i] for i, name in enumerate(("dq", "dk", "dv", "dsink")) if i in by_place}
    fields.update(dout=dout.pointer, dlse=rest[0].pointer if has_dlse else ffi.NULL)
    if max(wanted, default=0) >= _FIRST_AUX:
        fields["daux"] = ffi.new("DLTensor *[]", [by_place.get(_FIRST_AUX + i, ffi.NULL) for i in range(num_aux)])
    grads = ffi.new("saccade_attention_grads *", fields)
    described = [*inputs, dout, out, lse, *rest, *gradients]
    kept: list[Any] = [described, fields]
    params = _params(rest[has_dlse:], has_sink, num_aux, spec, max_seqlens, kept)
    arguments = (*(t.pointer for t in (*inputs, out, lse)), grads, params)
    return Plan(lib.saccade_attention_backward, arguments, described, params, kept)


def _backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, wanted: Sequence[int], q: Tensor, k: Tensor,
    v: Tensor, sink: Optional[Tensor], score_aux: Tensors, others: Tensors, spec: Spec, max_seqlens: Lengths,
    mask: Optional[BlockMask],
) -> list[Tensor]:  # fmt: skip
    """The gradients that are wanted, in the order of their places; those of score_aux are fp32."""
    outputs = _new_gradients(q, k, v, sink, score_aux, wanted)
    others = [dout, out, lse, *[t for t in (dlse, sink) if t is not None], *score_aux, *others]
    constants = (tuple(wanted), dlse is not None, sink is not None, len(score_aux), spec, max_seqlens)
    plan = plan_of(_plan_backward, q, k, v, others, spec.num_scalars, constants)
    plan.run(q.get_device(), (q, k, v, *others, *outputs), mask)
    return outputs


# -- as operators --


def _operators_mask(q: Tensor, k: Tensor, others: Tensors, s: Spec, number: int) -> Optional[BlockMask]:
    if s.list_blocks is None:
        return BlockMask.numbered(number)
    rows = 2 if s.options.heads_first else 1
    return import_lists(others[len(s.others) :], q.shape[rows], k.shape[rows], s.list_blocks)


@torch.library.custom_op("saccade::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    s = load(spec)
    mask = _operators_mask(q, k, others, s, block_mask)
    max_q, max_k = max_seqlens
    out, lse = _forward(q, k, v, sink, score_aux, others[: len(s.others)], s, (max_q, max_k), mask)
    assert lse is not None
    return out, lse


@attention_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Tensors, others: Tensors, spec: str,
      *_: Any) -> tuple[Tensor, Optional[Tensor]]:
    return _new_outputs(q, *_output_shapes(q, v, load(spec).options.heads_first))


@torch.library.custom_op("saccade::attention_backward", mutates_args=())
def attention_backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, wanted: Sequence[int],
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> list[Tensor]:  # fmt: skip
    s = load(spec)
    max_q, max_k = max_seqlens
    constants = s, (max_q, max_k), _operators_mask(q, k, others, s, block_mask)
    return _backward(dout, dlse, out, lse, wanted, q, k, v, sink, score_aux, others[: len(s.others)], *constants)


@attention_backward.register_fake
def _(dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, wanted: Sequence[int], q: Tensor, k: Tensor,
      v: Tensor, sink: Optional[Tensor], score_aux: Tensors, *_: Any) -> list[Tensor]:
    return _new_gradients(q, k, v, sink, score_aux, wanted)


@torch.library.custom_op("saccade::block_mask_lists", mutates_args=())
def block_mask_lists(
    aux: Sequence[Tensor], scalars: Optional[Tensor], spec: str, shape: Sequence[int], block_size: Sequence[int],
    device: torch.device, capacity: int,
) -> list[Tensor]:  # fmt: skip
    """PyTorch's lists of the mask that spec's mask_mod makes of shape (batch, heads, queries, keys)."""
    program = load(spec).mask
    values = [] if scalars is None else scalars.tolist()
    mask_mod = Modifier(
        "mask", program.text, aux=dict(zip(program.aux, aux)), scalars=dict(zip(program.scalars, values)))  # fmt: skip
    batch, heads, q_len, kv_len = shape
    q_block, kv_block = block_size
    mask = build_from_mod(mask_mod, q_len, kv_len, batch, heads, (q_block, kv_block), device, capacity)
    lists = _lists_of(shape, block_size, device)
    mask.export(dict(zip(LISTS, lists)))
    return lists


def _lists_of(shape: Sequence[int], block_size: Sequence[int], device: torch.device) -> list[Tensor]:
    q_blocks, kv_blocks = (-(-length // block) for length, block in zip(shape[2:], block_size))
    return new_lists(shape[0], shape[1], (q_blocks, kv_blocks), device)


@block_mask_lists.register_fake
def _(aux: Tensors, scalars: Optional[Tensor], spec: str, shape: Sequence[int], block_size: Sequence[int],
      device: torch.device, capacity: int) -> list[Tensor]:
    return _lists_of(shape, block_size, device)


# Floating point operations as torch.utils.flop_counter counts those of its own attention: every pair, masked or not.


def _products(q: Shape, k: Shape, spec: str, max_seqlens: Lengths) -> int:
    """Multiplications and additions of a product over one dimension, for each pair of a query and a key."""
    *batch, rows, heads, _ = q
    if batch:
        queries, keys, heads = (q[2], k[2], q[1]) if load(spec).options.heads_first else (rows, k[1], heads)
        return 2 * batch[0] * heads * queries * keys
    return 2 * heads * rows * (max_seqlens[1] or k[0])


@register_flop_formula(torch.ops.saccade.attention_forward)
def _(q: Shape, k: Shape, v: Shape, sink: Any, score_aux: Any, others: Any, spec: str, max_seqlens: Lengths, *_: Any,
      **__: Any) -> int:
    return _products(q, k, spec, max_seqlens) * (q[-1] + v[-1])


@register_flop_formula(torch.ops.saccade.attention_backward)
def _(dout: Any, dlse: Any, out: Any, lse: Any, wanted: Any, q: Shape, k: Shape, v: Shape, sink: Any, score_aux: Any,
      others: Any, spec: str, max_seqlens: Lengths, *_: Any, **__: Any) -> int:
    return _products(q, k, spec, max_seqlens) * (3 * q[-1] + 2 * v[-1])


# -- with autograd --


_holds_many = torch._C._functorch.is_legacy_batchedtensor


def dense_rows(gradient: Tensor) -> Tensor:
    """Autograd likes to hand over expanded scalars; the library wants the last dimension contiguous."""
    if not is_compiling() and _holds_many(gradient):
        raise NotImplementedError("is_grads_batched, vectorize=True: attention goes back from one gradient at a time")
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


def _gradients(ctx: Any, constants: Sequence[Any], num_aux: int, wanted: Sequence[int], dout: Optional[Tensor],
               dlse: Optional[Tensor], backward: Callable[..., list[Tensor]]) -> list[Optional[Tensor]]:
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, sink, score_aux, others, *ctx.constants = inputs
    ctx.save_for_backward(q, k, v, sink, *output, *score_aux, *others)
    ctx.set_materialize_grads(False)
    ctx.num_aux, ctx.num_others = len(score_aux), len(others)
    ctx.wanted = [i for i, t in enumerate((q, k, v, sink, *score_aux)) if t is not None and t.requires_grad]
    ctx.mask = BlockMask.numbered(inputs[-1])  # alive until the backward pass


def _operators_gradients(ctx: Any, dout: Optional[Tensor], dlse: Optional[Tensor]) -> tuple[Any, ...]:
    results = _gradients(ctx, ctx.constants, ctx.num_aux, ctx.wanted, dout, dlse, attention_backward)
    return *results[:_FIRST_AUX], results[_FIRST_AUX:], [None] * ctx.num_others, None, None, None


attention_forward.register_autograd(_operators_gradients, setup_context=_setup_context)
attention_backward.register_autograd(no_second_gradients)


# What _Eager gets beside the tensors that may have gradients: others, spec, max_seqlens, mask, with_lse.
_Call = tuple[Tensors, Spec, Lengths, Optional[BlockMask], bool]


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs more than a small attention."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], call: _Call,
                *score_aux: Tensor) -> Any:
        # In one piece: with a setup_context of its own, apply would bind the signature at every call. And what are no
        # inputs in one argument, since each costs.
        others, spec, max_seqlens, mask, with_lse = call
        out, lse = _forward(q, k, v, sink, score_aux, others, spec, max_seqlens, mask)
        ctx.save_for_backward(q, k, v, sink, out, lse, *score_aux, *others)
        ctx.set_materialize_grads(False)
        ctx.call = call
        return (out, lse) if with_lse else out

    @staticmethod
    def backward(ctx: Any, dout: Optional[Tensor], dlse: Optional[Tensor] = None) -> tuple[Any, ...]:
        _, spec, max_seqlens, mask, _ = ctx.call
        needed = ctx.needs_input_grad[:_FIRST_AUX] + ctx.needs_input_grad[_FIRST_AUX + 1 :]  # without that of `call`
        wanted = [i for i, needs in enumerate(needed) if needs]
        backward: Callable[..., list[Tensor]] = _backward
        constants: tuple[Any, ...] = spec, max_seqlens, mask
        if torch.is_grad_enabled():  # somebody wants to differentiate the gradients: the operator says that he cannot
            backward, constants = attention_backward, (spec_text(spec), max_seqlens, mask.number if mask else 0)
        results = _gradients(ctx, constants, len(spec.score.aux), wanted, dout, dlse, backward)
        return *results[:_FIRST_AUX], None, *results[_FIRST_AUX:]


_transforms_active = torch._C._are_functorch_transforms_active
_num_dispatch_modes = torch._C._len_torch_dispatch_stack
_jit_traces = torch._C._is_tracing
# Without torch's own apply, which looks for the wrappers of torch.func among the arguments: `attention` knows that
# there are none.
_apply_eager: Callable[..., Any] = super(torch.autograd.Function, _Eager).apply


def attention(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Tensors, others: Tensors, spec: Spec,
    max_seqlens: Lengths, mask: Optional[BlockMask], with_lse: bool,
) -> tuple[Tensor, Optional[Tensor]]:  # fmt: skip
    """out and, if wanted, lse, by the shortest way that autograd, torch.compile and dispatch modes allow."""
    compiling = is_compiling()
    if not compiling and (_transforms_active() or forward_ad._current_level >= 0):
        refuse_transforms(q, k, v, sink, *score_aux)
    if compiling or type(q) is not Tensor or q.is_meta or _num_dispatch_modes() or _jit_traces():
        number = mask.number if mask else 0
        out, lse = attention_forward(q, k, v, sink, score_aux, others, spec_text(spec), max_seqlens, number)
        return out, lse if with_lse else None
    if q.is_neg() or k.is_neg() or v.is_neg():  # views whose memory is not what they are; the dispatcher would know
        q, k, v = (t.resolve_neg() for t in (q, k, v))
    if torch.is_grad_enabled() and (
            q.requires_grad or k.requires_grad or v.requires_grad or sink is not None and sink.requires_grad
            or score_aux and any([t.requires_grad for t in score_aux])):  # fmt: skip
        result = _apply_eager(q, k, v, sink, (others, spec, max_seqlens, mask, with_lse), *score_aux)
        return result if with_lse else (result, None)
    return _forward(q, k, v, sink, score_aux, others, spec, max_seqlens, mask, with_lse)
