"""One library context a thread and allocator: contexts are cheap, and each is used by one thread at a time."""

from __future__ import annotations

import threading
from typing import Any, Optional

from ._library import CData, check, ffi, lib


class _Context:
    def __init__(self, params: CData = ffi.NULL) -> None:
        created = ffi.new("saccade_context **")
        check(lib.saccade_context_create(created, params))
        self.pointer = ffi.gc(created[0], lib.saccade_context_destroy)
        self.stream = 0

    def go_to(self, stream: int) -> None:
        check(lib.saccade_context_set_stream(self.pointer, ffi.cast("void *", stream)))
        self.stream = stream


class _ThreadsContexts(threading.local):
    host: Optional[_Context] = None
    device: Optional[_Context] = None


_local = _ThreadsContexts()


def context() -> CData:
    """This thread's context for calls on the host."""
    if _local.host is None:
        _local.host = _Context()
    return _local.host.pointer


def device_context(stream: int, allocator: Any) -> CData:
    """This thread's context for calls on a device: later ones run on `stream` (a CUstream as an integer) and take
    workspaces from `allocator`, a saccade_allocator that lives as long as the process."""
    known = _local.device
    if known is None:
        known = _local.device = _Context(ffi.new("saccade_context_params *", {"allocator": allocator}))
    if known.stream != stream:
        known.go_to(stream)
    return known.pointer
