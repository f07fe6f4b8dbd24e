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

from .._call import AttentionOptions, Gradients, backward, forward
from ..block_mask import BlockMask
from ..modifier import Modifier
from ._device import context_of


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


@functools.lru_cache(maxsize=1024)
def _load(spec: str) -> Spec:
    fields = json.loads(spec)
    return Spec(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _modifier(kind: str, text: str, grad_text: str, names, aux, scalars: Optional[Tensor]) -> Optional[Modifier]:
    if not text:
        return None
    values = {} if scalars is None else {f"scalar_{i}": s for i, s in enumerate(scalars.tolist())}
    return Modifier(kind, text, grad_text=grad_text, aux=dict(zip(names, aux)), scalars=values)


def _options(sink, score_aux, others, spec: str, max_seqlens, block_mask: int) -> AttentionOptions:
    s = _load(spec)
    named = dict(zip(s.others, others))
    mask_aux = [named.pop(f"mask_aux.{name}") for name in s.mask_aux]
    score_scalars, mask_scalars = named.pop("score_scalars", None), named.pop("mask_scalars", None)
    return AttentionOptions(
        scale=None if s.scale is None else float.fromhex(s.scale), causal=s.causal, window=s.window,
        window_align=s.window_align, softcap=float.fromhex(s.softcap), sink=sink,
        max_seqlen_q=max_seqlens[0], max_seqlen_k=max_seqlens[1],
        score_mod=_modifier("score", s.score_text, s.score_grad_text, s.score_aux, score_aux, score_scalars),
        mask_mod=_modifier("mask", s.mask_text, "", s.mask_aux, mask_aux, mask_scalars),
        block_mask=BlockMask.numbered(block_mask),
        deterministic=s.deterministic, backend=s.backend, **named)  # fmt: skip


def _new_outputs(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(rows, dtype=torch.float32)


def _attention_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out and lse."""
    out, lse = _new_outputs(q, v)
    forward(q, k, v, out, lse, _options(sink, score_aux, others, spec, max_seqlens, block_mask), ctx=context_of(q.device))
    return out, lse


attention_forward = torch.library.custom_op("saccade::attention_forward", _attention_forward, mutates_args=())


@attention_forward.register_fake
def _(q, k, v, *_):
    return _new_outputs(q, v)


def _new_gradients(q, k, v, sink, score_aux, aux_wanted) -> list[Tensor]:
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    if sink is not None:
        results.append(torch.empty_like(sink))
    return results + [torch.empty(score_aux[i].shape, dtype=torch.float32, device=q.device) for i in aux_wanted]


def _attention_backward(
    dout: Tensor, dlse: Optional[Tensor], out: Tensor, lse: Tensor, aux_wanted: Sequence[int],
    q: Tensor, k: Tensor, v: Tensor, sink: Optional[Tensor], score_aux: Sequence[Tensor], others: Sequence[Tensor],
    spec: str, max_seqlens: Sequence[int], block_mask: int,
) -> list[Tensor]:  # fmt: skip
    """dq, dk, dv; dsink if there is a sink; the fp32 gradients of the score_aux listed in aux_wanted."""
    results = _new_gradients(q, k, v, sink, score_aux, aux_wanted)
    dq, dk, dv, *rest = results
    dsink = rest.pop(0) if sink is not None else None
    daux = [rest[aux_wanted.index(i)] if i in aux_wanted else None for i in range(len(score_aux))] if aux_wanted else []
    options = _options(sink, score_aux, others, spec, max_seqlens, block_mask)
    backward(q, k, v, out, lse, Gradients(dout, dlse, dq, dk, dv, dsink, daux), options, ctx=context_of(q.device))
    return results


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
    """attention_forward, by the shortest way that autograd and torch.compile allow."""
    if score_aux or torch.compiler.is_compiling():
        return attention_forward(q, k, v, sink, score_aux, others, spec, max_seqlens, block_mask)
    return _Eager.apply(q, k, v, sink, score_aux, others, spec, max_seqlens, block_mask)
