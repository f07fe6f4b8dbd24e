"""Arrays of any library as DLTensors: nothing is copied."""

from __future__ import annotations

import ctypes

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
_DEVICES = {"cpu": 1, "cuda": 2}

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
            self._describe(array.data_ptr(), str(array.dtype)[6:], array.shape, array.stride(),
                           _DEVICES[array.device.type], array.device.index or 0)
        elif getattr(getattr(array, "dtype", None), "name", "") == "bfloat16":
            # NumPy knows bfloat16 only through ml_dtypes, and does not export it.
            strides = [s // 2 for s in array.strides]
            self._describe(array.ctypes.data, "bfloat16", array.shape, strides, _DEVICES["cpu"], 0)
        elif hasattr(array, "__dlpack__"):
            capsule = array.__dlpack__()
            self._kept = capsule
            managed = ffi.cast("DLManagedTensor *", _capsule_pointer(capsule, b"dltensor"))
            self.pointer = ffi.addressof(managed.dl_tensor)
        else:
            raise TypeError(f"{type(array).__name__} is no tensor: it has neither data_ptr nor __dlpack__")

    def _describe(self, address, dtype, shape, strides, device_type, device_id):
        if dtype not in _CODES:
            raise TypeError(f"dtype {dtype} is none of {', '.join(_CODES)}")
        extents, steps = ffi.new("int64_t[]", list(shape)), ffi.new("int64_t[]", list(strides))
        code, bits = _CODES[dtype]
        self.pointer = ffi.new("DLTensor *", {
            "data": ffi.cast("void *", address), "device": (device_type, device_id), "ndim": len(shape),
            "dtype": (code, bits, 1), "shape": extents, "strides": steps})  # fmt: skip
        self._kept = (extents, steps)


def pointers(tensors: list[Tensor]):
    """An array of DLTensor pointers, NULL when empty."""
    return ffi.new("const DLTensor *[]", [t.pointer for t in tensors]) if tensors else ffi.NULL


def dtype_code(name: str):
    """A DLDataType's initialiser."""
    return (*_CODES[name], 1)
