"""The context of calls on torch tensors: on CUDA, torch's current stream and its caching allocator."""

from __future__ import annotations

import torch
from torch import Tensor

from .._context import context, device_context
from .._library import ffi

# torch.cuda.current_stream(device).cuda_stream, without making a Stream of it.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # None: PyTorch without CUDA


@ffi.callback("void *(size_t, int32_t, int32_t, void *)")
def _alloc(size, device_type, device_id, user):
    # Within a call, the current stream of the call's device is the call's.
    try:
        return ffi.cast("void *", torch.cuda.caching_allocator_alloc(size, device_id, _raw_stream(device_id)))
    except torch.OutOfMemoryError:
        return ffi.NULL


@ffi.callback("void(void *, size_t, int32_t, int32_t, void *)")
def _free(pointer, size, device_type, device_id, user):
    torch.cuda.caching_allocator_delete(int(ffi.cast("uintptr_t", pointer)))


_ALLOCATOR = {"alloc": _alloc, "free": _free}


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Inputs of attention as torch.autocast wants them: in its dtype, where it is on."""
    device_type = tensors[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def context_of(device: torch.device):
    """For calls on this device."""
    if device.type != "cuda":
        return context()
    index = torch.cuda.current_device() if device.index is None else device.index
    return device_context(_raw_stream(index), _ALLOCATOR)
