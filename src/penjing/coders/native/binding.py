"""The compiled entropy coders, ``coder.c`` beside this file, through ctypes.

The library has no dependency and never touches Python, so the interpreter lock is free while
it runs.  It is loaded when first needed.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import FormatError, PenjingError

if TYPE_CHECKING:
    from penjing.core.tensors import Array

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_DAMAGED = -1

_POINTER, _INT, _U32 = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
_U64, _I64 = ctypes.c_uint64, ctypes.c_int64
_BYTES = _WORK = (_POINTER, _U64)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "tables_size": (),
    "tables_make": (_POINTER,),
    "context_work": (_POINTER, _POINTER),
    "context_decode_work": (*_BYTES, _POINTER),
    "context_encode": (_POINTER, _POINTER, _INT, _POINTER, _POINTER, *_WORK, *_BYTES),
    "context_measure": (_POINTER, _POINTER, _INT, _POINTER, _POINTER, *_WORK),
    "context_decode": (_POINTER, *_BYTES, _POINTER, _INT, _POINTER, *_WORK),
    "tokens_count": (_POINTER, _INT, _U64, _I64, _U32, _U32, _POINTER),
    "rans_work": (),
    "rans_encode": (_POINTER, _POINTER, _INT, _U64, _POINTER, _POINTER, *_WORK, *_BYTES),
    "rans_decode": (_POINTER, *_BYTES, _POINTER, _INT, _U64, *_WORK),
    "huffman_work": (),
    "huffman_encode": (_POINTER, _POINTER, _INT, _U64, _POINTER, _POINTER, *_WORK, *_BYTES),
    "huffman_decode": (_POINTER, *_BYTES, _POINTER, _INT, _U64, *_WORK),
}


def library_path() -> Path:
    """Say where the compiled library is expected: beside its source."""
    return Path(__file__).with_name(f"libpenjing_coder{_SUFFIX}")


def call(name: str, *arguments: Any) -> int:
    """Call one function of the library; arrays are passed as pointers to their memory.

    Raises:
        FormatError: The library found damaged bytes.
        PenjingError: The library is not there, or is older than this file.
    """
    passed = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    result = int(getattr(_library(), f"penjing_{name}")(*passed))
    if result == _DAMAGED:
        raise damaged("the bytes are not what an encoder writes")
    assert result >= 0, f"{name} refused its arguments: {result}"
    return result


def little_endian(array: Array) -> bytes:
    """Give the bytes of an array as they are in the file on every platform."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def damaged(problem: str) -> FormatError:
    """Make the error for bytes that cannot be decoded."""
    return FormatError("coded tensor", problem, "the file is damaged: get it again")


@cache
def tables() -> Array:
    """Give the constants that all coders share, computed once."""
    memory = np.empty(call("tables_size"), np.uint8)
    call("tables_make", memory)
    memory.setflags(write=False)
    return memory


def work_buffer(size: int) -> Array:
    """Give uninitialised memory, aligned for the library: ``size`` bytes or a few more."""
    return np.empty(-(-size // 8), np.uint64)


def as_bytes(payload: bytes | memoryview) -> Array:
    """View a payload as a flat uint8 array without copying it."""
    return np.frombuffer(payload, np.uint8)


def width_of(dtype: np.dtype[Any]) -> int:
    """Bytes per element of an integer dtype, negative for unsigned ones."""
    return -dtype.itemsize if dtype.kind == "u" else dtype.itemsize


def native_order(array: Array) -> Array:
    """Make an array contiguous, aligned and in the machine's byte order; a copy if need be."""
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, f"penjing_{name}")
            function.argtypes, function.restype = arguments, _I64
    except (OSError, AttributeError) as error:
        raise PenjingError(
            str(path),
            f"the compiled coders cannot be loaded: {error}",
            "in a checkout run 'make venv'; otherwise reinstall penjing where a C compiler or "
            "the 'ziglang' package is installed",
        ) from error
    return loaded
