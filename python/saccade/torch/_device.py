"""The context of calls on torch tensors: on CUDA, torch's current stream and its caching allocator."""

from __future__ import annotations

import threading
from typing import Any, Optional, Union

import torch
from torch import Tensor

from .._context import context, device_context
from .._library import CData, check, ffi, lib

# What torch.cuda has Python functions for, without the device and Stream objects that those make.
_raw_stream: Any = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # None: PyTorch without CUDA
_current_device: Any = getattr(torch._C, "_cuda_getDevice", None)
_raw_alloc: Any = getattr(torch._C, "_cuda_cudaCachingAllocator_raw_alloc", None)


class _Shortage(threading.local):
    error: Optional[torch.OutOfMemoryError] = None


_shortage = _Shortage()


# Addresses as integers on Python's side, which makes no cffi object of them.
@ffi.callback("uintptr_t (size_t, int32_t, int32_t, void *)")  # type: ignore[untyped-decorator]
def _alloc(size: int, device_type: int, device_id: int, user: CData) -> Any:
    # Within a call, the current stream of the call's device is the call's.
    try:
        if device_id == _current_device():
            return _raw_alloc(size, _raw_stream(device_id))
        return torch.cuda.caching_allocator_alloc(size, device_id, _raw_stream(device_id))
    except torch.OutOfMemoryError as error:
        _shortage.error = error
        return 0


@ffi.callback("void(uintptr_t, size_t, int32_t, int32_t, void *)")  # type: ignore[untyped-decorator]
def _free(address: int, size: int, device_type: int, device_id: int, user: CData) -> None:
    torch.cuda.caching_allocator_delete(address)  # type: ignore[no-untyped-call]


_ALLOCATOR = {
    "alloc": ffi.cast("void *(*)(size_t, int32_t, int32_t, void *)", _alloc),
    "free": ffi.cast("void(*)(void *, size_t, int32_t, int32_t, void *)", _free),
}


def check_call(status: int, note: str = "") -> None:
    """check of a call that may have asked for a workspace: what torch's allocator says of memory that it lacks, it says
    to the caller too."""
    error, _shortage.error = _shortage.error, None
    if error is not None and status == lib.SACCADE_OUT_OF_MEMORY:
        raise error
    check(status, note)


autocast_anywhere = torch._C._is_any_autocast_enabled


def autocast(q: Tensor, *others: Optional[Tensor]) -> tuple[Any, ...]:
    """Inputs of attention as torch.autocast wants them: in its dtype, where it is on."""
    tensors = (q, *others)
    device_type = q.device.type
    if q.is_meta or not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)


Device = Union[torch.device, str, int, None]


def device_of(device: Device) -> torch.device:
    """The device that is meant, on which a block mask can lie; None: the GPU where there is one."""
    meant = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device is None else device)
    if meant.type not in ("cpu", "cuda"):
        raise ValueError(f"device: block masks lie on cpu or cuda, not on {meant.type}")
    return meant


def context_of(device: torch.device) -> CData:
    """For calls on this device."""
    if device.type != "cuda":
        return context()
    return context_on(torch.cuda.current_device() if device.index is None else device.index)


def context_on(index: int) -> CData:
    """For calls on the GPU of this number; -1: on the host."""
    return context() if index < 0 else device_context(_raw_stream(index), _ALLOCATOR)
