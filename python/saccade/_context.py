"""One library context a thread: contexts are cheap, and each is used by one thread at a time."""

from __future__ import annotations

import threading

from ._library import check, ffi, lib

_local = threading.local()


def context(stream: int = 0):
    """This thread's context; later device calls run on `stream` (a CUstream as an integer)."""
    if not hasattr(_local, "context"):
        created = ffi.new("saccade_context **")
        check(lib.saccade_context_create(created, ffi.NULL))
        _local.context = ffi.gc(created[0], lib.saccade_context_destroy)
        _local.stream = 0
    if _local.stream != stream:
        check(lib.saccade_context_set_stream(_local.context, ffi.cast("void *", stream)))
        _local.stream = stream
    return _local.context
