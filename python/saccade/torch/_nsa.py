"""Native sparse attention as a torch operator with autograd. See saccade/nsa.h for every rule."""

from __future__ import annotations

import functools
import json
import math
from typing import Any, Optional, Sequence, Union, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .._library import CData, ffi, lib, struct
from .._tensor import Tensor as CTensor
from ._checks import check_inputs, check_numbers, no_second_gradients, refuse_transforms
from ._device import autocast, check_call, context_of
from ._ops import dense_rows
from ._plan import Shape

_SCORES = {None: 0, "logits": 1, "probabilities": 2}
_SELECT_PER = {None: 0, "head": 1, "group": 2}
_VISIBILITY = {"complete": 0, "started": 1}
_SAVED = ("k_cmp", "v_cmp", "indices", "lse_cmp", "lse_slc", "lse_win", "out_cmp", "out_slc", "out_win")


def nsa(
    q: Tensor, k: Tensor, v: Tensor, *, w_k: Optional[Tensor] = None, w_v: Optional[Tensor] = None,
    w_gate: Optional[Tensor] = None, gates: Optional[Tensor] = None, cu_seqlens: Optional[Tensor] = None,
    max_seqlen: int = 0, scale: Optional[float] = None, block: int = 64, top_k: int = 16, window: int = 512,
    query_tile: int = 256, score: Optional[str] = None, select_per: Optional[str] = None, visibility: str = "complete",
    initial_blocks: int = 0, local_blocks: int = 0, compressed_top_k: int = 0, deterministic: bool = False,
    keep_outputs: bool = False, return_indices: bool = False, backend: Optional[str] = None,
) -> Union[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
    """Causal self-attention of q (B, N, H, D) over k (B, N, Hkv, D), v (B, N, Hkv, Dv), or packed (T, H, D) with
    cu_seqlens: the gated sum of attention to compressed blocks of keys, to the top_k blocks that each tile of queries
    selects, and to the last `window` keys. -> (B, N, H, Dv) or (T, H, Dv).

    w_k (Hkv, D, D), w_v (Hkv, Dv, Dv): project the means of `block` keys and values; None: the identity. The gates of
    the three branches are sigmoid(w_gate q) with w_gate (H, 3, D), or gates (B, N, H, 3) or (T, H, 3) as they are;
    without either each counts a third. All of these get gradients; the selection has none. max_seqlen: at
    least the longest sequence, needed where cu_seqlens lie on a GPU. keep_outputs: keep the three branches' outputs for
    the backward, which otherwise makes them again: three tensors like the result, for the time of a forward.

    score "logits" or "probabilities", select_per "head" or "group"; None: probabilities per group for query_tile 1,
    else logits per head. With return_indices also the selected blocks, ascending, -1 where there is none: int32
    (B, H or Hkv, tiles, top_k). The other options, and every rule and formula: saccade/nsa.h, after arXiv 2502.11089.

    Raises ValueError or TypeError for a wrong argument, NotImplementedError, with the reason, for what is not served.
    """
    words: tuple[tuple[str, Optional[str], Any], ...] = (
        ("score", score, _SCORES), ("select_per", select_per, _SELECT_PER), ("visibility", visibility, _VISIBILITY))
    for name, value, known in words:
        if value not in known:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(repr(k) for k in known)}")
    for name, number, least in (
            ("block", block, 1), ("top_k", top_k, 1), ("window", window, 1), ("query_tile", query_tile, 1),
            ("initial_blocks", initial_blocks, 0), ("local_blocks", local_blocks, 0),
            ("compressed_top_k", compressed_top_k, 0), ("max_seqlen", max_seqlen, 0)):  # fmt: skip
        if not isinstance(number, (int, torch.SymInt)) or number < least:
            raise ValueError(f"{name}: {number!r}, must be a whole number and at least {least}")
    check_numbers(scale=scale)
    check_inputs(q, k, v, cu_seqlens is not None)
    # The defaults written out, so that what is saved has a shape that Python knows.
    score = score or ("probabilities" if query_tile == 1 else "logits")
    select_per = select_per or ("group" if score == "probabilities" else "head")
    if not torch.compiler.is_compiling():
        refuse_transforms(q, k, v, w_k, w_v, w_gate, gates)
    q, k, v, w_k, w_v, w_gate, gates = autocast(q, k, v, w_k, w_v, w_gate, gates)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    spec = _spec_text(
        scale=scale, block=block, top_k=top_k, window=window, query_tile=query_tile, score=score, select_per=select_per,
        visibility=visibility, initial_blocks=initial_blocks, local_blocks=local_blocks,
        compressed_top_k=compressed_top_k, deterministic=deterministic, keep_outputs=keep_outputs,
        backend=backend)  # fmt: skip
    out, *saved = nsa_forward(q, k, v, w_k, w_v, w_gate, gates, cu_seqlens, spec, max_seqlen)
    return (out, saved[2]) if return_indices else out


@functools.lru_cache(maxsize=256)
def _dump(**fields: Any) -> str:
    return json.dumps(fields)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _spec_text(**fields: Any) -> str:
    return _dump(**fields)


@functools.lru_cache(maxsize=256)
def _load(spec: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(spec)
    return fields


def _params(spec: str, cu_seqlens: Optional[Tensor], max_seqlen: int, kept: list[Any]) -> CData:
    s = _load(spec)
    kept.append(CTensor.of(cu_seqlens, "cu_seqlens"))
    fields = {name: s[name] for name in ("block", "top_k", "window", "query_tile", "initial_blocks", "local_blocks",
                                         "compressed_top_k", "deterministic")}  # fmt: skip
    fields.update(has_scale=s["scale"] is not None, scale=s["scale"] or 0.0, score=_SCORES[s["score"]],
                  select_per=_SELECT_PER[s["select_per"]], visibility=_VISIBILITY[s["visibility"]],
                  cu_seqlens=kept[-1].pointer, max_seqlen=max_seqlen)
    if s["backend"]:
        kept.append(ffi.new("char[]", s["backend"].encode()))
        fields["backend"] = kept[-1]
    return struct("saccade_nsa_params", fields)


def _tensors(kept: list[Any], **tensors: Optional[Tensor]) -> CData:
    fields = {name: CTensor.of(tensor, name) for name, tensor in tensors.items()}
    kept.append(fields)
    return ffi.new("saccade_nsa_tensors *", {name: t.pointer for name, t in fields.items()})


def _new_saved(q: Tensor, v: Tensor, k: Tensor, batch: int, spec: str) -> list[Tensor]:
    """What _SAVED names, as saccade/nsa.h shapes it; without keep_outputs the three outputs are empty."""
    s = _load(spec)
    heads = q.shape[-2] if s["select_per"] == "head" else k.shape[-2]
    *leading, length, q_heads, _ = q.shape  # packed, nothing leads
    tiles = -(-length // s["query_tile"]) if leading else length // s["query_tile"] + batch
    cmp, rows = (*leading, length // s["block"]), (*leading, q_heads, length)
    lists = (*leading, heads, tiles, s["top_k"])
    lse = [q.new_empty(rows, dtype=torch.float32) for _ in range(3)]
    # Packed, the places behind the last sequence's are nobody's.
    indices = q.new_full(lists, -1, dtype=torch.int32)
    out = [q.new_empty((*q.shape[:-1], v.shape[-1]) if s["keep_outputs"] else 0) for _ in range(3)]
    return [q.new_zeros((*cmp, *k.shape[-2:])), q.new_zeros((*cmp, *v.shape[-2:])), indices, *lse, *out]


def _named(saved: Sequence[Tensor], spec: str) -> dict[str, Tensor]:
    """Of what _SAVED names, what there is."""
    return dict(zip(_SAVED if _load(spec)["keep_outputs"] else _SAVED[:-3], saved))


def _new_results(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Optional[Tensor], spec: str) -> tuple[Tensor, ...]:
    batch = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return q.new_empty((*q.shape[:-1], v.shape[-1])), *_new_saved(q, v, k, batch, spec)


_Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("saccade::nsa_forward", mutates_args=())
def nsa_forward(
    q: Tensor, k: Tensor, v: Tensor, w_k: Optional[Tensor], w_v: Optional[Tensor], w_gate: Optional[Tensor],
    gates: Optional[Tensor], cu_seqlens: Optional[Tensor], spec: str, max_seqlen: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """out, then what the backward needs."""
    out, *saved = _new_results(q, k, v, cu_seqlens, spec)
    kept: list[Any] = []
    tensors = _tensors(kept, q=q, k=k, v=v, w_k=w_k, w_v=w_v, w_gate=w_gate, gates=gates, **_named(saved, spec))
    c_out, params = CTensor(out), _params(spec, cu_seqlens, max_seqlen, kept)
    check_call(lib.saccade_nsa_forward(context_of(q.device), tensors, c_out.pointer, params))
    return cast(_Results, (out, *saved))


@nsa_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, w_k: Any, w_v: Any, w_gate: Any, gates: Any, cu_seqlens: Optional[Tensor],
      spec: str, max_seqlen: int) -> tuple[Tensor, ...]:
    return _new_results(q, k, v, cu_seqlens, spec)


def _new_gradients(q: Tensor, k: Tensor, v: Tensor, *weights: Optional[Tensor]) -> list[Tensor]:
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    return results + [torch.empty(w.shape, dtype=torch.float32, device=q.device) for w in weights if w is not None]


@torch.library.custom_op("saccade::nsa_backward", mutates_args=())
def nsa_backward(
    dout: Tensor, saved: Sequence[Tensor], q: Tensor, k: Tensor, v: Tensor, w_k: Optional[Tensor],
    w_v: Optional[Tensor], w_gate: Optional[Tensor], gates: Optional[Tensor], cu_seqlens: Optional[Tensor], spec: str,
    max_seqlen: int,
) -> list[Tensor]:  # fmt: skip
    """dq, dk, dv, then the fp32 gradients of those of w_k, w_v, w_gate, gates that there are."""
    weights = dict(w_k=w_k, w_v=w_v, w_gate=w_gate, gates=gates)
    results = _new_gradients(q, k, v, *weights.values())
    kept: list[Any] = []
    tensors = _tensors(kept, q=q, k=k, v=v, **weights, **_named(saved, spec))
    names = ["dout", "dq", "dk", "dv", *(f"d{name}" for name, weight in weights.items() if weight is not None)]
    fields = {name: CTensor(t) for name, t in zip(names, [dout, *results])}
    grads = ffi.new("saccade_nsa_grads *", {name: t.pointer for name, t in fields.items()})
    params = _params(spec, cu_seqlens, max_seqlen, kept)
    check_call(lib.saccade_nsa_backward(context_of(q.device), tensors, grads, params))
    return results


@nsa_backward.register_fake
def _(dout: Tensor, saved: Sequence[Tensor], q: Tensor, k: Tensor, v: Tensor, w_k: Optional[Tensor],
      w_v: Optional[Tensor], w_gate: Optional[Tensor], gates: Optional[Tensor], *_: Any) -> list[Tensor]:
    return _new_gradients(q, k, v, w_k, w_v, w_gate, gates)


# As PyTorch counts attention: every key that a query visits, masked or not; here those of the three branches.


def _products(q: Shape, spec: str, max_seqlen: int) -> int:
    """Multiplications and additions of a product over one dimension, for each pair of a query and a key."""
    s = _load(spec)
    *batch, rows, heads, _ = q
    length = rows if batch else max_seqlen or rows
    compressed = length // s["block"]
    if s["compressed_top_k"]:
        compressed = min(compressed, 128 * s["compressed_top_k"])
    visited: int = compressed + min(s["top_k"] * s["block"], length) + min(s["window"], length)
    return 2 * math.prod(batch) * heads * rows * visited


@register_flop_formula(torch.ops.saccade.nsa_forward)
def _(q: Shape, k: Shape, v: Shape, w_k: Any, w_v: Any, w_gate: Any, gates: Any, cu_seqlens: Any, spec: str,
      max_seqlen: int, *_: Any, **__: Any) -> int:
    return _products(q, spec, max_seqlen) * (q[-1] + v[-1])


@register_flop_formula(torch.ops.saccade.nsa_backward)
def _(dout: Any, saved: Any, q: Shape, k: Shape, v: Shape, w_k: Any, w_v: Any, w_gate: Any, gates: Any,
      cu_seqlens: Any, spec: str, max_seqlen: int, *_: Any, **__: Any) -> int:
    return _products(q, spec, max_seqlen) * (3 * q[-1] + 2 * v[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.spec, ctx.max_seqlen = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(ctx: Any, dout: Tensor, *_: Any) -> tuple[Any, ...]:
    tensors, saved = ctx.saved_tensors[:-len(_SAVED)], ctx.saved_tensors[-len(_SAVED):]
    dq, dk, dv, *rest = nsa_backward(dense_rows(dout), saved, *tensors, ctx.spec, ctx.max_seqlen)
    weights = [None if w is None else rest.pop(0).to(w.dtype) for w in tensors[3:7]]
    return dq, dk, dv, *weights, None, None, None


nsa_forward.register_autograd(_backward, setup_context=_setup_context)
nsa_backward.register_autograd(no_second_gradients)
