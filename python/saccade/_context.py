"""One library context a thread and allocator: contexts are cheap, and each is used by one thread at a time."""

from __future__ import annotations

import threading
from typing import Optional

from ._library import check, ffi, lib


class _Context:
    def __init__(self, params=ffi.NULL):
        created = ffi.new("saccade_context **")
        check(lib.saccade_context_create(created, params))
        self.pointer = ffi.gc(created[0], lib.saccade_context_destroy)
        self.stream = 0

    def on(self, stream: int):
        if self.stream != stream:
            check(lib.saccade_context_set_stream(self.pointer, ffi.cast("void *", stream)))
            self.stream = stream
        return self.pointer


class _ThreadsContexts(threading.local):
    host: Optional[_Context] = None
    device: Optional[_Context] = None


_local = _ThreadsContexts()


def context():
    """This thread's context for calls on the host."""
    if _local.host is None:
        _local.host = _Context()
    return _local.host.pointer


def device_context(stream: int, allocator):
    """This thread's context for calls on a device: later ones run on `stream` (a CUstream as an integer) and take
    workspaces from `allocator`, a saccade_allocator that lives as long as the process."""
    if _local.device is None:
        _local.device = _Context(ffi.new("saccade_context_params *", {"allocator": allocator}))
    return _local.device.on(stream)
