"""Loads, stores and atomic operations, of global and of shared memory."""

from __future__ import annotations

import numpy as np

from tests.evidence.ptx.arithmetic import Unsupported
from tests.evidence.ptx.parse import Instruction
from tests.evidence.ptx.threads import Array, Fault, elements_of
from tests.evidence.ptx.values import decode, encode, unsigned
from tests.evidence.ptx.warps import Warps
from tests.evidence.shadow import ATOMIC, LOAD, STORE


class Accesses(Warps):
    """Threads that touch memory."""

    def _address(self, operand: str) -> Array:
        base, _, offset = operand.strip("[] ").replace(" ", "").partition("+")
        return self._raw(base, 64).astype(np.int64) + int(offset or 0)

    def _load(self, what: Instruction, active: Array) -> None:
        targets = elements_of(what.operands[0])
        width = what.type.bits // 8
        size = width * len(targets)
        address = self._aligned(what, self._address(what.operands[1]), size, active)
        data = np.zeros((self._count, size), np.uint8)
        if "param" in what.modifiers:
            data[active] = self._parameters[address[active][:, None] + np.arange(size)]
        elif any(m.startswith("shared") for m in what.modifiers):
            data[active] = self._shared.load(address[active], size, self._warp[active], self._slot[active], what.text)
        elif "global" in what.modifiers:
            valid = self._global(LOAD, address, size, active)
            data[valid] = self._memory.load(address[valid], size)
        else:
            raise Unsupported(what.text)
        signed = what.type.kind == "s"
        for i, target in enumerate(targets):
            part = np.ascontiguousarray(data[:, i * width : (i + 1) * width]).view(unsigned(8 * width))[:, 0]
            self._write(target, decode(part, what.type).astype(np.int64) if signed else part, active)

    def _store(self, what: Instruction, active: Array) -> None:
        sources = elements_of(what.operands[1])
        bits = what.type.bits
        parts = [np.ascontiguousarray(self._raw(s, bits)).view(np.uint8).reshape(self._count, -1) for s in sources]
        data = np.concatenate(parts, axis=1)
        address = self._aligned(what, self._address(what.operands[0]), data.shape[1], active)
        if any(m.startswith("shared") for m in what.modifiers):
            self._shared.store(address[active], data[active], self._warp[active], self._slot[active], what.text)
        elif "global" in what.modifiers:
            valid = self._global(STORE, address, data.shape[1], active)
            self._memory.store(address[valid], data[valid])
        else:
            raise Unsupported(what.text)

    def _global(self, kind: str, address: Array, size: int, active: Array) -> Array:
        valid = active.copy()
        valid[active] = self._memory.access(kind, address[active], size, self._warp[active], self._block[active])
        return valid

    def _aligned(self, what: Instruction, address: Array, size: int, active: Array) -> Array:
        if (address[active] % size).any():
            raise Fault(f"{self.kernel.name}: misaligned address: {what.text}")
        return address

    def _atomic(self, what: Instruction, active: Array) -> None:
        if "global" not in what.modifiers:
            raise Unsupported(what.text)
        fetches = what.name == "atom"
        operation = next(m for m in what.modifiers if m in ("add", "min", "max", "exch", "inc", "cas", "and", "or"))
        kind, size = what.type, what.type.bits // 8
        address = self._aligned(what, self._address(what.operands[int(fetches)]), size, active)
        value = self._read_name(what.operands[1 + int(fetches)], kind)
        third = self._read_name(what.operands[3], kind) if operation == "cas" else value
        valid = self._global(ATOMIC, address, size, active)
        before = np.zeros(self._count, unsigned(kind.bits))
        for i in np.nonzero(valid)[0]:
            old = self._memory.load(address[i : i + 1], size).view(unsigned(kind.bits))[0]
            before[i] = old[0]
            new = _updated(operation, decode(old, kind)[0], value[i], third[i])
            bits = encode(np.asarray([new]), kind)
            self._memory.store(address[i : i + 1], np.ascontiguousarray(bits).view(np.uint8).reshape(1, -1))
        if fetches:
            self._write(what.operands[0], before, active)

    def _matrix_parts(self, what: Instruction, operand: str, number: int, active: Array) -> list[tuple[Array, slice]]:
        """Addresses of parts of this lane's four bytes in matrix ``number``: lanes ``8*number...`` hold its rows'.

        A lane holds elements ``2*(lane % 4)`` and the next one of row ``lane // 4``; transposed, of that column.
        """
        if what.type.bits != 16:
            raise Unsupported(what.text)
        self._members(what, np.full(self._count, 0xFFFFFFFF, np.uint32), active)
        rows = self._aligned(what, self._address(operand), 16, active)

        def row(index: Array) -> Array:
            return rows[np.minimum(self._warp_start + 8 * number + index, self._count - 1)]

        along, across = self._lane // 4, self._lane % 4
        if "trans" not in what.modifiers:
            return [(row(along) + 4 * across, slice(0, 4))]
        return [(row(2 * across + half) + 2 * along, slice(2 * half, 2 * half + 2)) for half in (0, 1)]

    def _load_matrix(self, what: Instruction, active: Array) -> None:
        for number, target in enumerate(elements_of(what.operands[0])):
            data = np.zeros((self._count, 4), np.uint8)
            for address, part in self._matrix_parts(what, what.operands[1], number, active):
                size = part.stop - part.start
                data[active, part] = self._shared.load(
                    address[active], size, self._warp[active], self._slot[active], what.text
                )
            self._write(target, data.view(np.uint32)[:, 0], active)

    def _store_matrix(self, what: Instruction, active: Array) -> None:
        for number, source in enumerate(elements_of(what.operands[1])):
            data = np.ascontiguousarray(self._raw(source, 32)).view(np.uint8).reshape(self._count, 4)
            for address, part in self._matrix_parts(what, what.operands[0], number, active):
                self._shared.store(
                    address[active], data[active, part], self._warp[active], self._slot[active], what.text
                )


def _updated(operation: str, old: Array, value: Array, third: Array) -> Array:
    if operation == "cas":
        return third if old == value else old
    if operation == "inc":
        return old + 1 if old < value else old * 0
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}
    return value if operation == "exch" else functions[operation](old, value)
