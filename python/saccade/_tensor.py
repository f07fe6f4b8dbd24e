"""Arrays of any library as DLTensors: nothing is copied."""

from __future__ import annotations

import ctypes
import sys

from ._library import ffi

_CODES = {
    "float64": (2, 64),
    "float32": (2, 32),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "int64": (0, 64),
    "int32": (0, 32),
    "uint8": (1, 8),
    "bool": (1, 8),
}

_TENSOR = ffi.typeof("DLTensor *")
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


class Tensor:
    """A DLTensor (`.pointer`, NULL for None) and what keeps it alive."""

    __slots__ = ("pointer", "_kept")

    def __init__(self, array):
        if array is None:
            self.pointer = ffi.NULL
        elif hasattr(array, "data_ptr"):
            torch = sys.modules["torch"]
            array = array.detach() if array.requires_grad else array
            # The older export: it takes no part in stream order, which is the caller's business here.
            self._take(torch.utils.dlpack.to_dlpack(array.view(torch.uint8) if array.dtype == torch.bool else array))
        elif getattr(getattr(array, "dtype", None), "name", "") == "bfloat16":
            # NumPy knows bfloat16 only through ml_dtypes, and does not export it.
            self._describe_bfloat16(array)
        elif hasattr(array, "__dlpack__"):
            self._take(array.__dlpack__())
        else:
            raise TypeError(f"{type(array).__name__} is no tensor: it has neither data_ptr nor __dlpack__")

    def _take(self, capsule):
        self._kept = capsule
        # A DLManagedTensor begins with its DLTensor.
        self.pointer = ffi.cast(_TENSOR, _capsule_pointer(capsule, b"dltensor"))

    def _describe_bfloat16(self, array):
        extents = ffi.new("int64_t[]", list(array.shape))
        steps = ffi.new("int64_t[]", [stride // 2 for stride in array.strides])
        self.pointer = ffi.new("DLTensor *", {
            "data": ffi.cast("void *", array.ctypes.data), "device": (1, 0), "ndim": array.ndim,
            "dtype": dtype_code("bfloat16"), "shape": extents, "strides": steps})  # fmt: skip
        self._kept = (array, extents, steps)


def pointers(tensors: list[Tensor]):
    """An array of DLTensor pointers, NULL when empty."""
    return ffi.new("const DLTensor *[]", [t.pointer for t in tensors]) if tensors else ffi.NULL


def dtype_code(name: str):
    """A DLDataType's initialiser."""
    return (*_CODES[name], 1)
