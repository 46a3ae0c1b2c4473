"""Pytest plugin: the backend ``triton`` on CPU tensors through Triton's interpreter, for the suites of the operators.

Run with ``-p tests.triton.interpreted`` and ``TRITON_INTERPRET=1 HYBRIDKERN_NO_EXT=1``: the parametrized fixture
``backend`` then stands for Triton alone, whose launchers serve CPU tensors for the time of the session.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import triton.language as tl
from triton.runtime import interpreter

from hybridkern.ops import _backends


def _convert_exactly() -> None:
    """The interpreter cuts float32 off to bfloat16, takes subnormal bfloat16 for zero, and multiplies matrices of the
    bits of bfloat16 numbers: make it exact, as on GPUs.
    """
    builder = interpreter.InterpreterBuilder
    plain = builder.cast_impl

    def cast(self: object, source: object, to: object) -> object:
        if source.dtype.scalar == tl.bfloat16 and to.scalar == tl.float32:
            exact = np.ascontiguousarray(source.data).view(np.uint16).astype(np.uint32) << 16
            return interpreter.TensorHandle(exact.view(np.float32), tl.float32)
        if source.dtype.scalar != tl.float32 or to.scalar != tl.bfloat16:
            return plain(self, source, to)
        bits = np.ascontiguousarray(source.data).view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return interpreter.TensorHandle(np.where(np.isnan(source.data), np.uint16(0x7FC0), rounded), tl.bfloat16)

    multiply = builder.create_dot

    def dot(self: object, a: object, b: object, *rest: object) -> object:
        a, b = (cast(self, value, tl.float32) if value.dtype.scalar == tl.bfloat16 else value for value in (a, b))
        return multiply(self, a, b, *rest)

    builder.create_dot = dot
    builder.cast_impl = cast
    for name in ("create_fp_ext", "create_fp_trunc"):
        setattr(builder, name, lambda self, source, to: self.cast_impl(source, to))


_convert_exactly()


@pytest.fixture(scope="session", autouse=True)
def _served() -> Iterator[None]:
    with _backends.interpret_triton(), np.errstate(all="ignore"):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Nothing but Triton for ``backend``."""
    for definition in metafunc._arg2fixturedefs.get("backend", ()):
        definition.params = ("triton",)
