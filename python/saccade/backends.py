"""Which backend serves a request, and for each other every reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._call import AttentionOptions
from ._context import context
from ._library import CData, check, ffi, lib, text
from ._tensor import Array, Tensor


@dataclass(frozen=True)
class Backend:
    """usable: for what was asked; else `reasons` are every reason why not."""

    name: str
    title: str
    usable: bool
    reasons: tuple[str, ...]


def in_general() -> list[Backend]:
    """Each backend for a small bf16 forward. It reads host memory or a GPU's, so it is asked for the memory that leaves
    fewer reasons against it."""
    host, gpu = ({b.name: b for b in explain(_small_request(device))} for device in (lib.kDLCPU, lib.kDLCUDA))
    found = [host[name] if host[name].usable or len(host[name].reasons) < len(other.reasons) else other
             for name, other in gpu.items()]
    return sorted(found, key=lambda backend: not backend.usable)


def _small_request(device: int) -> CData:
    return ffi.new("saccade_request *", {
        "device": (device, 0), "dtype": (lib.kDLBfloat, 16, 1), "batch": 1, "num_heads": 1, "num_kv_heads": 1,
        "seqlen_q": 128, "seqlen_k": 128, "head_dim": 64, "head_dim_v": 64})  # fmt: skip


def explain(request: CData) -> list[Backend]:
    """What a saccade_request can use: usable backends first, best first."""
    report = ffi.new("saccade_backend_report **")
    lib.saccade_select_backend(context(), request, report)
    try:
        entries = [report[0].backends[i] for i in range(report[0].num_backends)]
        return [Backend(text(e.name), text(e.title), e.usable, tuple(text(e.reasons[i]) for i in range(e.num_reasons)))
                for e in entries]
    finally:
        lib.saccade_backend_report_destroy(report[0])


def explain_call(q: Array, k: Array, v: Array, options: AttentionOptions, *, training: bool = False) -> list[Backend]:
    """The same for the call that these arguments would make."""
    kept: list[Any] = []
    tensors = [Tensor.of(t, name) for t, name in ((q, "q"), (k, "k"), (v, "v"))]
    request = ffi.new("saccade_request *")
    grads = ffi.new("saccade_attention_grads *") if training else ffi.NULL
    check(lib.saccade_request_from_call(request, *(t.pointer for t in tensors), grads, options.to_c(kept)))
    return explain(request)
