"""What the instructions compute that touch registers only (PTX ISA, section 9.7)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.evidence.ptx.approximate import Approximations
from tests.evidence.ptx.parse import Instruction
from tests.evidence.ptx.values import Type, is_type

Array = np.ndarray
Read = Callable[[int, Type], Array]  # the n-th operand as numbers of a type
Result = tuple[Type, Array]

_U32 = Type("u", 32)
_ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
_BITWISE: dict[str, Callable[..., Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
}


class Unsupported(NotImplementedError):
    """An instruction, or a variant of one, that this executor does not know."""


class Arithmetic:
    """Evaluates an instruction, given how to read its operands."""

    def __init__(self, approximations: Approximations) -> None:
        self._approximations = approximations

    def __call__(self, instruction: Instruction, read: Read) -> Result:
        """Type and value of the destination.

        Raises:
            Unsupported: the instruction is not known.
        """
        method = getattr(self, f"_{instruction.name}", None)
        if method is None:
            raise Unsupported(instruction.text)
        return method(instruction, read)

    # moves and choices

    def _mov(self, instruction: Instruction, read: Read) -> Result:
        return instruction.type, read(1, instruction.type)

    def _cvta(self, instruction: Instruction, read: Read) -> Result:
        return instruction.type, read(1, instruction.type)

    def _selp(self, instruction: Instruction, read: Read) -> Result:
        kind = Type("b", instruction.type.bits)
        return kind, np.where(read(3, Type.parse("pred")), read(1, kind), read(2, kind))

    def _set(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        true = compare(instruction.modifiers[0], read(1, kind), read(2, kind))
        target = Type.parse(next(m for m in instruction.modifiers if is_type(m)))
        return target, true.astype(np.float32) if target.is_float else np.where(true, -1, 0)

    # bits

    def _bits(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        values = [read(i, kind) for i in range(1, len(instruction.operands))]
        return kind, _BITWISE[instruction.name](*values)

    _and = _or = _xor = _not = _bits

    def _shl(self, instruction: Instruction, read: Read) -> Result:
        kind, count = instruction.type, read(2, _U32)
        value = read(1, Type("u", kind.bits)).astype(np.uint64)
        return kind, np.where(count >= kind.bits, np.uint64(0), value << np.minimum(count, 63).astype(np.uint64))

    def _shr(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        value = read(1, kind)
        if kind.kind == "s":
            return kind, value.astype(np.int64) >> np.minimum(read(2, _U32), kind.bits - 1).astype(np.int64)
        count = read(2, _U32)
        shifted = value.astype(np.uint64) >> np.minimum(count, 63).astype(np.uint64)
        return kind, np.where(count >= kind.bits, np.uint64(0), shifted)

    def _shf(self, instruction: Instruction, read: Read) -> Result:
        low, high = (read(i, _U32).astype(np.uint64) for i in (1, 2))
        count = read(3, _U32).astype(np.uint64)
        count = count & np.uint64(31) if "wrap" in instruction.modifiers else np.minimum(count, np.uint64(32))
        both = (high << np.uint64(32)) | low
        left = "l" in instruction.modifiers
        return _U32, (both << count) >> np.uint64(32) if left else (both >> count) & np.uint64(0xFFFFFFFF)

    def _bfe(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        position, length = read(2, _U32) & 0xFF, read(3, _U32) & 0xFF
        value = read(1, kind).astype(np.int64 if kind.kind == "s" else np.uint64)
        shifted = value >> np.minimum(position, kind.bits - 1).astype(value.dtype)
        kept = np.minimum(length, 63).astype(np.uint64)
        field = shifted.astype(np.uint64) & ((np.uint64(1) << kept) - np.uint64(1))
        if kind.kind == "s":
            sign = (field >> np.maximum(kept, np.uint64(1)) - np.uint64(1)) & np.uint64(1)
            field = np.where((sign == 1) & (kept > 0), field - (np.uint64(1) << kept), field)
        return kind, np.where(length >= kind.bits, shifted.astype(np.uint64), field)

    def _bfi(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        source, target = (read(i, kind).astype(np.uint64) for i in (1, 2))
        position, length = (np.minimum(read(i, _U32) & 0xFF, 63).astype(np.uint64) for i in (3, 4))
        mask = ((np.uint64(1) << length) - np.uint64(1)) << position
        return kind, (target & ~mask) | ((source << position) & mask)

    def _lop3(self, instruction: Instruction, read: Read) -> Result:
        a, b, c = (read(i, _U32) for i in (1, 2, 3))
        table = int(read(4, _U32)[0])
        result = np.zeros_like(a)
        for index in range(8):
            if table >> index & 1:
                result |= (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
        return _U32, result

    def _prmt(self, instruction: Instruction, read: Read) -> Result:
        if instruction.modifiers != ("b32",):
            raise Unsupported(instruction.text)
        both = (read(2, _U32).astype(np.uint64) << np.uint64(32)) | read(1, _U32)
        selector = read(3, _U32).astype(np.uint64)
        result = np.zeros_like(both)
        for place in range(4):
            choice = (selector >> np.uint64(4 * place)) & np.uint64(15)
            byte = (both >> (np.uint64(8) * (choice & np.uint64(7)))) & np.uint64(0xFF)
            byte = np.where(choice & np.uint64(8), np.where(byte & np.uint64(0x80), 0xFF, 0), byte).astype(np.uint64)
            result |= byte << np.uint64(8 * place)
        return _U32, result

    def _popc(self, instruction: Instruction, read: Read) -> Result:
        return _U32, np.bitwise_count(read(1, instruction.type))

    def _clz(self, instruction: Instruction, read: Read) -> Result:
        bits, value = instruction.type.bits, read(1, instruction.type)
        return _U32, sum((value >> value.dtype.type(i) == 0).astype(np.uint32) for i in range(bits))

    def _brev(self, instruction: Instruction, read: Read) -> Result:
        bits, value = instruction.type.bits, read(1, instruction.type).astype(np.uint64)
        one = np.uint64(1)
        swapped = [((value >> np.uint64(i)) & one) << np.uint64(bits - 1 - i) for i in range(bits)]
        return instruction.type, np.bitwise_or.reduce(swapped)

    # numbers

    def _binary(self, instruction: Instruction, read: Read, operation: Callable[[Array, Array], Array]) -> Result:
        kind, narrow = _types(instruction)
        if not kind.is_float:
            return kind, operation(read(1, kind), read(2, kind))
        values = [_flush(instruction, read(1, narrow)), _flush(instruction, read(2, kind))]
        return kind, _finish(instruction, operation(*values), operation, values)

    def _add(self, instruction: Instruction, read: Read) -> Result:
        return self._binary(instruction, read, np.add)

    def _sub(self, instruction: Instruction, read: Read) -> Result:
        return self._binary(instruction, read, np.subtract)

    def _mul(self, instruction: Instruction, read: Read) -> Result:
        if not instruction.type.is_float:
            return _product(instruction, read)
        return self._binary(instruction, read, np.multiply)

    def _fma(self, instruction: Instruction, read: Read) -> Result:
        kind, narrow = _types(instruction)
        if not kind.is_float:
            raise Unsupported(instruction.text)
        values = [_flush(instruction, read(i, t)) for i, t in ((1, narrow), (2, narrow), (3, kind))]
        result = multiply_add(*values)
        if "relu" in instruction.modifiers:
            result = np.maximum(result, 0)
        return kind, _finish(instruction, result, multiply_add, values)

    def _mad(self, instruction: Instruction, read: Read) -> Result:
        if instruction.type.is_float:
            return self._fma(instruction, read)
        kind, product = _product(instruction, read)
        return kind, product + read(3, kind)

    def _div(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        if kind.is_float:
            first, second = (_flush(instruction, read(i, kind)) for i in (1, 2))
            if "approx" in instruction.modifiers or "full" in instruction.modifiers:
                return kind, _flush(instruction, self._approximations("div", first, second))
            return kind, _finish(instruction, first / second, np.divide, (first, second))
        return kind, _quotient(read(1, kind), read(2, kind))

    def _rem(self, instruction: Instruction, read: Read) -> Result:
        first, second = read(1, instruction.type), read(2, instruction.type)
        return instruction.type, first - _quotient(first, second) * second

    def _extreme(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        keeps_nan = "NaN" in instruction.modifiers
        largest = instruction.name == "max"
        choose = (np.maximum if keeps_nan else np.fmax) if largest else (np.minimum if keeps_nan else np.fmin)
        values = [_flush(instruction, read(i, kind)) for i in range(1, len(instruction.operands))]
        result = values[0]
        for value in values[1:]:
            result = choose(result, value)
        return kind, result

    _max = _min = _extreme

    def _neg(self, instruction: Instruction, read: Read) -> Result:
        return instruction.type, -read(1, instruction.type)

    def _abs(self, instruction: Instruction, read: Read) -> Result:
        return instruction.type, np.abs(_flush(instruction, read(1, instruction.type)))

    def _copysign(self, instruction: Instruction, read: Read) -> Result:
        return instruction.type, np.copysign(read(2, instruction.type), read(1, instruction.type))

    def _root(self, instruction: Instruction, read: Read) -> Result:
        kind = instruction.type
        value = _flush(instruction, read(1, kind))
        if "approx" in instruction.modifiers and kind.bits == 64:
            if instruction.name != "rcp":
                raise Unsupported(instruction.text)
            return kind, _upper_word(1.0 / value)
        if "approx" not in instruction.modifiers:
            exact = {"sqrt": np.sqrt, "rcp": lambda v: v.dtype.type(1) / v}
            if instruction.name not in exact:
                raise Unsupported(instruction.text)
            return kind, _finish(instruction, exact[instruction.name](value), exact[instruction.name], (value,))
        return kind, _flush(instruction, self._approximations(instruction.name, value))

    _sqrt = _rsqrt = _rcp = _ex2 = _lg2 = _tanh = _sin = _cos = _root

    def _cvt(self, instruction: Instruction, read: Read) -> Result:
        types = [Type.parse(m) for m in instruction.modifiers if is_type(m)]
        target, source = types
        if target.lanes == 2:
            high, low = (read(i, source) for i in (1, 2))
            return target, np.stack([low, high], axis=-1)
        value = read(1, source)
        if source.is_float:
            value = _flush(instruction, value)
            for name, rounding in _ROUNDINGS.items():
                value = rounding(value) if name in instruction.modifiers else value
        if source.is_float and not target.is_float:
            return target, _to_integer(value, target)
        if target.is_float:
            value = value.astype(np.float64 if target.bits == 64 else np.float32)
            if "sat" in instruction.modifiers:
                value = _saturate(value)
            if {"rm", "rp", "rz"} & set(instruction.modifiers) and target.bits < 64:
                raise Unsupported(instruction.text)
            return target, _flush(instruction, value)
        if "sat" in instruction.modifiers:
            raise Unsupported(instruction.text)
        return target, value


def _upper_word(value: Array) -> Array:
    """What ``rcp.approx.ftz.f64`` leaves of a result: its lower word is 0, subnormal numbers become 0."""
    kept = (value.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)
    return np.where(np.abs(kept) < 2.0**-1022, np.copysign(0.0, kept), kept)


def _types(instruction: Instruction) -> tuple[Type, Type]:
    """Of the result and the last operand, and of the operands before it: ``add.f32.bf16`` adds a bf16 to an f32."""
    types = [Type.parse(modifier) for modifier in instruction.modifiers if is_type(modifier)]
    return types[0], types[-1]


def compare(name: str, first: Array, second: Array) -> Array:
    """``setp``'s comparison: ordered, ``...u`` true where one is NaN, or ``num`` and ``nan``."""
    unordered = np.isnan(first) | np.isnan(second) if first.dtype.kind == "f" else np.zeros(first.shape, bool)
    if name in ("num", "nan"):
        return unordered if name == "nan" else ~unordered
    if name in _COMPARE:
        return _COMPARE[name](first, second) & ~unordered
    if name.endswith("u") and name[:-1] in _COMPARE:
        return _COMPARE[name[:-1]](first, second) | unordered
    raise Unsupported(f"comparison {name}")


def multiply_add(x: Array, y: Array, z: Array) -> Array:
    """``x*y + z`` rounded once, but for double rounding in about one case in 2**29 (in float64: 2**50)."""
    if x.dtype != np.float64:
        return (x.astype(np.float64) * y + z).astype(x.dtype)
    product = x * y
    (x_high, x_low), (y_high, y_low) = _halves(x), _halves(y)
    product_error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    total = product + z
    back = total - product
    total_error = (product - (total - back)) + (z - back)
    exact = total + (product_error + total_error)
    return np.where(np.isfinite(exact), exact, total)  # halves of huge numbers overflow, infinities have none


def _halves(x: Array) -> tuple[Array, Array]:
    """Two numbers of 26 bits whose sum is ``x`` (Veltkamp)."""
    scaled = x * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - x)
    return high, x - high


def _product(instruction: Instruction, read: Read) -> Result:
    kind = instruction.type
    first, second = read(1, kind), read(2, kind)
    if "wide" in instruction.modifiers:
        wide = np.int64 if kind.kind == "s" else np.uint64
        return kind.wide, first.astype(wide) * second.astype(wide)
    if "hi" not in instruction.modifiers:
        return kind, first * second
    if kind.bits == 64:
        exact = [int(a) * int(b) >> 64 for a, b in zip(first, second, strict=True)]
        return kind, np.array([value & (2**64 - 1) for value in exact], np.uint64)
    wide = np.int64 if kind.kind == "s" else np.uint64
    return kind, (first.astype(wide) * second.astype(wide)) >> wide(kind.bits)


def _quotient(first: Array, second: Array) -> Array:
    """Integer division toward zero."""
    safe = np.where(second == 0, np.ones_like(second), second)
    quotient = first // safe
    return np.where((first % safe != 0) & ((first < 0) != (safe < 0)), quotient + 1, quotient).astype(first.dtype)


def _flush(instruction: Instruction, value: Array) -> Array:
    """``.ftz``: subnormal numbers become zeros of their sign."""
    if "ftz" not in instruction.modifiers or value.dtype != np.float32:
        return value
    return np.where(np.abs(value) < np.float32(2.0**-126), np.copysign(np.float32(0), value), value)


def _finish(instruction: Instruction, value: Array, operation: Callable[..., Array], operands: object) -> Array:
    """Directed rounding, ``.sat`` and ``.ftz`` of a result rounded to nearest."""
    direction = {"rz", "rm", "rp"} & set(instruction.modifiers)
    if direction:
        if value.dtype != np.float32:
            raise Unsupported(instruction.text)
        value = _directed(direction.pop(), value, operation, operands)
    if "sat" in instruction.modifiers:
        value = _saturate(value)
    return _flush(instruction, value)


def _directed(direction: str, nearest: Array, operation: Callable[..., Array], operands: object) -> Array:
    exact = operation(*(operand.astype(np.float64) for operand in operands))  # type: ignore[attr-defined]
    down, up = np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))
    below = np.where(nearest > exact, down, nearest)
    above = np.where(nearest < exact, up, nearest)
    return {"rm": below, "rp": above, "rz": np.where(exact >= 0, below, above)}[direction]


def _saturate(value: Array) -> Array:
    return np.clip(np.where(np.isnan(value), 0, value), 0, 1).astype(value.dtype)


def _to_integer(value: Array, target: Type) -> Array:
    """Truncated already; out of range it sticks to the limits, NaN gives 0."""
    low = -(2.0 ** (target.bits - 1)) if target.kind == "s" else 0.0
    high = 2.0 ** (target.bits - (target.kind == "s"))
    wide = np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=high, neginf=low)
    top = np.nextafter(high, 0.0) if target.bits == 64 else high - 1
    clipped = np.clip(np.trunc(wide), low, top)
    return clipped.astype(np.int64 if target.kind == "s" else np.uint64)
