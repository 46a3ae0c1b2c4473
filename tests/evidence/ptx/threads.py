"""Threads and what each holds: registers, and the names that code calls their values by."""

from __future__ import annotations

import numpy as np

from tests.evidence.ptx.arithmetic import Arithmetic, compare
from tests.evidence.ptx.memory import GlobalMemory, SharedMemory
from tests.evidence.ptx.parse import Instruction, Kernel
from tests.evidence.ptx.values import Type, decode, unsigned
from tests.evidence.shadow import Finding

Array = np.ndarray
WARP = 32
PRED, F64 = Type("pred", 1), Type("f", 64)
_POISON = 2**64 - 1  # what a register holds that nobody wrote: NaN, and an index out of all bounds


class Fault(Exception):
    """The code did something after which nothing can be said any more."""


class Threads:
    """Those of some blocks of a grid, all at once, and their registers."""

    def __init__(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        shape: tuple[int, int, int],
        blocks: Array,
        parameters: Array,
        memory: GlobalMemory,
        shared: int,
        arithmetic: Arithmetic,
    ) -> None:
        self.kernel, self._parameters, self._memory, self._arithmetic = kernel, parameters, memory, arithmetic
        threads = int(np.prod(shape))
        self._count = blocks.size * threads
        self._slot = np.repeat(np.arange(blocks.size), threads)  # which of these blocks
        self._block = np.repeat(blocks, threads)  # which of the grid
        within = np.tile(np.arange(threads), blocks.size)
        self._lane = within % WARP
        warps = -(-threads // WARP)
        self._warp = self._block * warps + within // WARP
        self._warp_start = self._slot * threads + within // WARP * WARP  # index of lane 0
        self._warp_firsts = np.flatnonzero(self._lane == 0)
        self._warp_size = np.minimum(threads - within // WARP * WARP, WARP)
        self._shared = SharedMemory(blocks.size, kernel.shared_bytes + shared)
        self._special = _special_registers(grid, shape, self._block, within)
        self._registers: dict[str, Array] = {}
        self._faults: list[Finding] = []
        self._held = np.zeros(self._count, bool)  # at an instruction that waits for other lanes of the warp
        self.instructions = 0

    def findings(self) -> list[Finding]:
        """Of shared memory and of the threads' talk."""
        return self._shared.findings + self._faults

    def _read_name(self, operand: str, kind: Type) -> Array:
        return decode(self._raw(operand, kind.bits), kind)

    def _raw(self, operand: str, bits: int) -> Array:
        """An operand's bits: a register (the lower ones of a wider one), a special register, an address, a number."""
        if operand in self._special:
            return self._special[operand].astype(unsigned(bits))
        if operand in self._registers:
            value = self._registers[operand]
            return value if value.dtype == unsigned(bits) else value.astype(unsigned(bits))
        if operand[0] == "%":  # no thread has written it: fine where the value is masked off later
            return np.full(self._count, _POISON & (2**bits - 1), unsigned(bits))
        return np.full(self._count, _constant(operand, bits, self.kernel), unsigned(bits))

    def _write(self, operand: str, value: Array, active: Array) -> None:
        if operand == "_":
            return
        bits = self.kernel.register_bits(operand)
        if operand not in self._registers:
            self._registers[operand] = np.full(self._count, _POISON & (2**bits - 1), unsigned(bits))
        self._registers[operand][active] = value.astype(unsigned(bits))[active]

    def _pack(self, what: Instruction, active: Array) -> None:
        target, source = what.operands
        bits = what.type.bits
        if target.startswith("{"):
            parts = elements_of(target)
            width = bits // len(parts)
            value = self._raw(source, bits).astype(np.uint64)
            for i, part in enumerate(parts):
                self._write(part, (value >> np.uint64(i * width)).astype(unsigned(width)), active)
            return
        parts = elements_of(source)
        width = bits // len(parts)
        value = np.zeros(self._count, np.uint64)
        for i, part in enumerate(parts):
            value |= self._raw(part, width).astype(np.uint64) << np.uint64(i * width)
        self._write(target, value, active)

    def _set_predicates(self, what: Instruction, active: Array) -> None:
        kind = what.type
        first, second = (self._read_name(what.operands[i], kind) for i in (1, 2))
        value = compare(what.modifiers[0], first, second)
        opposite = ~value
        combine = next((m for m in what.modifiers if m in ("and", "or", "xor")), None)
        if combine is not None:
            other = what.operands[3]
            operand = ~self._read_name(other[1:], PRED) if other[0] == "!" else self._read_name(other, PRED)
            with_other = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combine]
            value, opposite = with_other(value, operand), with_other(opposite, operand)
        for target, result in zip(what.operands[0].split("|"), (value, opposite), strict=False):
            self._write(target.strip(), result, active)


def _special_registers(
    grid: tuple[int, int, int], shape: tuple[int, int, int], block: Array, within: Array
) -> dict[str, Array]:
    registers = {
        "%tid.x": within % shape[0],
        "%tid.y": within // shape[0] % shape[1],
        "%tid.z": within // (shape[0] * shape[1]),
        "%ctaid.x": block % grid[0],
        "%ctaid.y": block // grid[0] % grid[1],
        "%ctaid.z": block // (grid[0] * grid[1]),
        "%laneid": within % WARP,
        "%warpid": within // WARP,
        "WARP_SZ": np.full(block.shape, WARP),
    }
    for axis, name in enumerate("xyz"):
        registers[f"%ntid.{name}"] = np.full(block.shape, shape[axis])
        registers[f"%nctaid.{name}"] = np.full(block.shape, grid[axis])
    return registers


def _constant(operand: str, bits: int, kernel: Kernel) -> int:
    if operand in kernel.shared:
        return kernel.shared[operand]
    if operand in kernel.parameters:
        return kernel.parameters[operand][0]
    if operand in ("true", "false"):
        return int(operand == "true")
    if operand[:2].lower() in ("0f", "0d"):
        value = int(operand[2:], 16)
    else:
        value = int(operand.rstrip("U"), 0)
    return value & (2**bits - 1)


def elements_of(operand: str) -> list[str]:
    """The operands that a list of them in braces holds."""
    return [part.strip() for part in operand.strip("{} ").split(",")]
