"""Functions over arrays as machine code, and how it reads bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def compiled(function: F) -> F:
    """To machine code when it is first called. Division by zero gives infinity, as in numpy."""
    return cast("F", numba.njit(function, error_model="numpy"))


def _load(bits: int) -> Callable[[Bytes, int], int]:
    """A function that reads a little-endian signed integer at any byte of a buffer."""

    @intrinsic
    def load(typing: Any, buffer: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            place = builder.gep(array.data, [arguments[1]])
            loaded = builder.load(builder.bitcast(place, ir.IntType(bits).as_pointer()))
            loaded.align = 1
            return loaded if bits == 64 else builder.sext(loaded, ir.IntType(64))

        return numba.types.int64(buffer, at), generate

    return cast("Callable[[Bytes, int], int]", load)


load64 = _load(64)
load32 = _load(32)
