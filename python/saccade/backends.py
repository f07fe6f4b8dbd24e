"""Which backend serves a request, and for each other every reason why not."""

from __future__ import annotations

from dataclasses import dataclass

from ._call import AttentionOptions
from ._context import context
from ._library import check, ffi, lib, text
from ._tensor import Tensor


@dataclass(frozen=True)
class Backend:
    name: str
    title: str
    usable: bool
    reasons: tuple[str, ...]


def explain(request=None) -> list[Backend]:
    """Usable backends first, best first. request: a saccade_request; None: a small bf16 forward on the CPU."""
    if request is None:
        request = ffi.new("saccade_request *", {
            "device": (lib.kDLCPU, 0), "dtype": (lib.kDLBfloat, 16, 1), "batch": 1, "num_heads": 1, "num_kv_heads": 1,
            "seqlen_q": 128, "seqlen_k": 128, "head_dim": 64, "head_dim_v": 64})  # fmt: skip
    report = ffi.new("saccade_backend_report **")
    lib.saccade_select_backend(context(), request, report)
    try:
        entries = [report[0].backends[i] for i in range(report[0].num_backends)]
        return [Backend(text(e.name), text(e.title), e.usable, tuple(text(e.reasons[i]) for i in range(e.num_reasons)))
                for e in entries]
    finally:
        lib.saccade_backend_report_destroy(report[0])


def explain_call(q, k, v, options: AttentionOptions, *, training: bool = False) -> list[Backend]:
    """The same for the call that these arguments would make."""
    kept: list = []
    tensors = [Tensor(t) for t in (q, k, v)]
    request = ffi.new("saccade_request *")
    grads = ffi.new("saccade_attention_grads *") if training else ffi.NULL
    check(lib.saccade_request_from_call(request, *(t.pointer for t in tensors), grads, options.to_c(kept)))
    return explain(request)
