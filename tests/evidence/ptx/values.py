"""Bits of registers and the numbers they stand for."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import numpy as np

Array = np.ndarray
_UNSIGNED = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


class Type(NamedTuple):
    """A type of PTX: kind ``b u s f bf pred``, bits of the whole, and how many numbers are packed in it."""

    kind: str
    bits: int
    lanes: int = 1

    @classmethod
    @cache
    def parse(cls, text: str) -> Type:
        """``f32``, ``bf16x2``, ``pred``...

        Raises:
            ValueError: that is no type.
        """
        if text == "pred":
            return cls("pred", 1)
        found = re.fullmatch(r"(b|u|s|f|bf)(8|16|32|64)(x2)?", text)
        if found is None:
            raise ValueError(f"text: got {text!r}, expected a type of PTX")
        lanes = 2 if found[3] else 1
        return cls(found[1], int(found[2]) * lanes, lanes)

    @property
    def element(self) -> Type:
        """Type of one of the packed numbers."""
        return Type(self.kind, self.bits // self.lanes)

    @property
    def is_float(self) -> bool:
        """A floating-point type."""
        return self.kind in ("f", "bf")

    @property
    def signed(self) -> Type:
        """The signed integer of this width."""
        return Type("s", self.bits)

    @property
    def wide(self) -> Type:
        """The integer of twice the width."""
        return Type(self.kind, 2 * self.bits)


def is_type(text: str) -> bool:
    """A modifier that names a type."""
    try:
        Type.parse(text)
    except ValueError:
        return False
    return True


def unsigned(bits: int) -> type:
    """NumPy's type for that many raw bits."""
    return _UNSIGNED[bits]


def bfloat16_bits(values: Array) -> Array:
    """float32 as the bits of bfloat16, to nearest even; NaN as hardware writes it."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), np.uint64(0x7FFF), rounded).astype(np.uint16)


def decode(bits: Array, kind: Type) -> Array:
    """Numbers of raw bits: float16 and bfloat16 as float32, packed ones with an axis of their own at the end."""
    if kind.lanes > 1:
        width = kind.bits // kind.lanes
        return decode(np.ascontiguousarray(bits).view(_UNSIGNED[width]).reshape(*bits.shape, kind.lanes), kind.element)
    bits = np.ascontiguousarray(bits)
    if kind.kind == "bf":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind.kind == "f":
        if kind.bits == 16:
            return bits.view(np.float16).astype(np.float32)
        return bits.view(np.float32 if kind.bits == 32 else np.float64)
    return bits.view(_SIGNED[kind.bits]) if kind.kind == "s" else bits


def encode(values: Array, kind: Type) -> Array:
    """Raw bits of numbers, rounded to nearest even where the type is narrower; integers wrap around."""
    if kind.lanes > 1:
        pair = np.ascontiguousarray(encode(values, kind.element))
        return pair.view(_UNSIGNED[kind.bits]).reshape(values.shape[:-1])
    if kind.kind == "bf":
        return bfloat16_bits(values)
    if kind.kind == "f":
        floats = {16: np.float16, 32: np.float32, 64: np.float64}[kind.bits]
        return np.ascontiguousarray(values.astype(floats)).view(_UNSIGNED[kind.bits])
    if kind.kind == "pred":
        return values.astype(np.bool_)
    return np.ascontiguousarray(values).astype(_UNSIGNED[kind.bits])
