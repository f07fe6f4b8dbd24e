"""Arrays of any library as DLTensors: nothing is copied."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

from ._library import CData, ffi

Array = Any  # of NumPy, PyTorch, or whatever speaks DLPack

_CODES = {
    "float64": (2, 64),
    "float32": (2, 32),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "int64": (0, 64),
    "int32": (0, 32),
    "int16": (0, 16),
    "int8": (0, 8),
    "uint8": (1, 8),
    "bool": (1, 8),
}
_DEVICES = {"cpu": 1, "cuda": 2}

_TENSOR = ffi.typeof("DLTensor *")
_ADDRESS = ffi.typeof("uintptr_t *")
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


class Tensor:
    """A DLTensor (`.pointer`, NULL for None) of an array, which the caller keeps alive. `.address`: where it holds the
    address of the data, a uintptr_t *."""

    __slots__ = ("pointer", "address", "dtype", "_kept")

    def __init__(self, array: Array) -> None:
        self.pointer: CData = ffi.NULL
        self.address: CData = None
        if array is None:
            return
        self.dtype = dtype_name(array)
        if hasattr(array, "data_ptr"):
            if str(getattr(array, "layout", "torch.strided")) != "torch.strided":
                raise TypeError(f"layout is {array.layout}, a dense tensor is needed")
            # Not through torch's export, which costs more than a small attention and takes part in stream order.
            self._describe(array.data_ptr(), (array.device.type, array.device.index or 0), array.shape, array.stride())
        elif self.dtype == "bfloat16" or not writable(array):
            # NumPy exports neither bfloat16, which it knows only through ml_dtypes, nor arrays that are read-only.
            strides = [stride // array.itemsize for stride in array.strides]
            self._describe(array.ctypes.data, ("cpu", 0), array.shape, strides)
        elif hasattr(array, "__dlpack__"):
            self._take(array.__dlpack__())
        else:
            raise TypeError(f"{type(array).__name__} is no tensor: it has neither data_ptr nor __dlpack__")
        self.address = ffi.cast(_ADDRESS, self.pointer)

    @staticmethod
    def of(array: Array, name: str) -> Tensor:
        """name: what an error calls it."""
        try:
            return array if isinstance(array, Tensor) else Tensor(array)
        except (TypeError, BufferError) as error:  # NumPy's for what DLPack has no code for
            raise TypeError(f"{name}: {error}") from None

    def _take(self, capsule: object) -> None:
        self._kept: object = capsule
        # A DLManagedTensor begins with its DLTensor.
        self.pointer = ffi.cast(_TENSOR, _capsule_pointer(capsule, b"dltensor"))
        if self.dtype == "bool":  # of which DLPack has a code of its own; to modifiers they are bytes
            self.pointer.dtype = dtype_code(self.dtype)

    def _describe(self, address: int, device: tuple[str, int], shape: Sequence[int], strides: Sequence[int]) -> None:
        if device[0] not in _DEVICES:
            raise TypeError(f"tensors lie on {' or '.join(_DEVICES)}, not on {device[0]}")
        extents = self._kept = ffi.new("int64_t[]", (*shape, *strides))
        self.pointer = ffi.new("DLTensor *", {
            "data": ffi.cast("void *", address), "device": (_DEVICES[device[0]], device[1]), "ndim": len(shape),
            "dtype": dtype_code(self.dtype), "shape": extents, "strides": extents + len(shape)})  # fmt: skip


def pointers(tensors: list[Tensor]) -> CData:
    """An array of DLTensor pointers, NULL when empty."""
    return ffi.new("const DLTensor *[]", [t.pointer for t in tensors]) if tensors else ffi.NULL


def writable(array: Array) -> bool:
    return bool(getattr(getattr(array, "flags", None), "writeable", True))


def dtype_name(array: Array) -> str:
    """As PyTorch and NumPy alike call it; "" where the array does not say."""
    return str(getattr(array, "dtype", "")).removeprefix("torch.")


def dtype_code(name: str) -> tuple[int, int, int]:
    """A DLDataType's initialiser."""
    if name not in _CODES:
        raise TypeError(f"dtype {name} is none of {', '.join(_CODES)}")
    return (*_CODES[name], 1)
