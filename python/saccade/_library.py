"""libsaccade.so and its declarations, as cffi sees them.

The declarations are the public headers themselves, put through the C preprocessor when the library was built, and lie
beside it: in this package, or in the folder that SACCADE_LIBRARY_DIR names (a build tree).
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import cffi  # type: ignore[import-untyped]

CData = Any  # what cffi makes: its types are in the C headers, which it reads at run time


class SaccadeError(RuntimeError):
    """A call failed; the text says which argument, what was found, and what is allowed."""


class CompileError(SaccadeError):
    """A modifier's text did not compile."""


class UnsupportedError(SaccadeError, NotImplementedError):
    """No usable backend serves the request; the text has every backend's reasons."""


class ArgumentError(SaccadeError, ValueError):
    """An argument is wrong whatever the backend."""


def _load() -> tuple[Any, Any]:
    folder = pathlib.Path(os.environ.get("SACCADE_LIBRARY_DIR", pathlib.Path(__file__).parent))
    declarations = folder / "saccade_declarations.h"
    if not declarations.exists():
        raise ImportError(f"{declarations} is missing: install the package, or set SACCADE_LIBRARY_DIR to a build tree")
    interface = cffi.FFI()
    interface.cdef(declarations.read_text())
    library = next(folder.glob("libsaccade.so*"), None)
    if library is None:
        raise ImportError(f"{folder} has no libsaccade.so: install the package again, or build the tree")
    return interface, interface.dlopen(str(library))


ffi, lib = _load()

_ERRORS = {
    lib.SACCADE_INVALID_ARGUMENT: ArgumentError,
    lib.SACCADE_UNSUPPORTED: UnsupportedError,
    lib.SACCADE_OUT_OF_MEMORY: MemoryError,
    lib.SACCADE_COMPILE_FAILED: CompileError,
}


def struct(kind: str, fields: dict[str, Any]) -> CData:
    """A C struct of that type; a value that its field cannot hold is refused by the field's name."""
    created = ffi.new(f"{kind} *")
    for name, value in fields.items():
        try:
            setattr(created, name, value)
        except (TypeError, OverflowError) as error:
            raise type(error)(f"{name}: {value!r}: {error}") from None
    return created


def check(status: int, note: str = "") -> None:
    """Raises what a status means, with the library's own words and a note."""
    if status != lib.SACCADE_OK:
        raise _ERRORS.get(status, SaccadeError)(text(lib.saccade_last_error()) + note)


def text(pointer: CData) -> str:
    return str(ffi.string(pointer), "utf-8")
