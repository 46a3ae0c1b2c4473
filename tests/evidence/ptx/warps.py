"""Instructions by which the threads of a warp talk to each other."""

from __future__ import annotations

import numpy as np

from tests.evidence.ptx.arithmetic import Unsupported
from tests.evidence.ptx.parse import Instruction
from tests.evidence.ptx.threads import F64, PRED, Array, Fault, Threads, elements_of
from tests.evidence.ptx.values import encode

_MASKS = {"shfl": 4, "vote": 2, "bar": 0, "barrier": 0}  # which operand names the lanes that must be there


class Warps(Threads):
    """Threads that shuffle, vote, wait for each other and multiply matrices together."""

    def _multiply_matrices(self, what: Instruction, active: Array) -> None:
        """``d = a b + c`` of a warp, float64, ``a`` 8 x 4: a lane has one number of ``a`` and ``b``, two of ``c``."""
        if "m8n8k4" not in what.modifiers or what.type != F64:
            raise Unsupported(what.text)
        self._members(what, np.full(self._count, 0xFFFFFFFF, np.uint32), active)
        target, *sources = (elements_of(operand) for operand in what.operands)
        (a,), (b,), c = ([self._read_name(name, F64) for name in names] for names in sources)
        rows, columns = a.reshape(-1, 8, 4), b.reshape(-1, 8, 4).swapaxes(1, 2)
        out = (rows @ columns + np.stack(c, 1).reshape(-1, 8, 8)).reshape(-1, 2)
        for name, value in zip(target, out.T, strict=True):
            self._write(name, encode(np.ascontiguousarray(value), F64), active)

    def _with_all_lanes(self, what: Instruction, active: Array) -> Array:
        """Of the threads at an instruction that names lanes of the warp, those whose lanes are all there.

        The others are held until these come, as the hardware holds them.
        """
        place = _MASKS.get(what.name)
        if place is None or (what.name in ("bar", "barrier") and "warp" not in what.modifiers):
            return active
        taking = active
        if what.guard is not None:
            guard = self._read_name(what.guard, PRED)
            taking = active & (~guard if what.negated else guard)
        late = taking & ~self._complete(self._raw(what.operands[place], 32), taking)
        self._held[active] = late[active]
        return active & ~late

    def _complete(self, mask: Array, active: Array) -> Array:
        """Whether as many lanes of a thread's warp are active as its mask names."""
        here = np.bincount(self._warp_start[active], minlength=self._count)
        ones = (np.uint64(1) << self._warp_size.astype(np.uint64)) - np.uint64(1)
        return here[self._warp_start] == np.bitwise_count(mask.astype(np.uint32) & ones)

    def _members(self, what: Instruction, mask: Array, active: Array) -> None:
        """Every lane named in the mask must be here, and every lane that is here in the mask."""
        named = (mask >> self._lane.astype(np.uint32)) & np.uint32(1) == 1
        if (active & ~named).any():
            raise Fault(f"{self.kernel.name}: a lane outside of its own mask: {what.text}")
        if not self._complete(mask, active)[active].all():
            raise Fault(f"{self.kernel.name}: lanes named in the mask are missing: {what.text}")

    def _shuffle(self, what: Instruction, active: Array) -> None:
        mode = what.modifiers[1]
        value = self._raw(what.operands[1], 32)
        offset, control, mask = (self._raw(operand, 32).astype(np.int64) for operand in what.operands[2:5])
        self._members(what, mask.astype(np.uint32), active)
        segment, clamp = control >> 8 & 31, control & 31
        last = (self._lane & segment) | (clamp & ~segment)
        source = {
            "bfly": self._lane ^ offset,
            "down": self._lane + offset,
            "up": self._lane - offset,
            "idx": (self._lane & segment) | (offset & ~segment),
        }[mode]
        inside = source >= last if mode == "up" else source <= last
        source = np.where(inside, source, self._lane)
        if (active & (mask >> source & 1 == 0)).any():
            raise Fault(f"{self.kernel.name}: a shuffle reads a lane outside of the mask: {what.text}")
        result = value[np.minimum(self._warp_start + source, self._count - 1)]
        targets = what.operands[0].split("|")
        self._write(targets[0].strip(), result, active)
        if len(targets) > 1:
            self._write(targets[1].strip(), inside, active)

    def _vote(self, what: Instruction, active: Array) -> None:
        source, mask = what.operands[1], self._raw(what.operands[2], 32)
        self._members(what, mask, active)
        value = ~self._read_name(source[1:], PRED) if source[0] == "!" else self._read_name(source, PRED)
        yes = np.bincount(self._warp_start[active & value], minlength=self._count)[self._warp_start]
        here = np.bincount(self._warp_start[active], minlength=self._count)[self._warp_start]
        if "ballot" in what.modifiers:
            chosen = active & value
            bits = np.zeros(self._count, np.uint64)
            np.bitwise_or.at(bits, self._warp_start[chosen], np.uint64(1) << self._lane[chosen].astype(np.uint64))
            self._write(what.operands[0], bits[self._warp_start], active)
        else:
            kinds = {"any": yes > 0, "all": yes == here, "uni": (yes == here) | (yes == 0)}
            self._write(what.operands[0], kinds[next(m for m in what.modifiers if m in kinds)], active)

    def _active_mask(self, what: Instruction, active: Array) -> None:
        bits = np.zeros(self._count, np.uint64)
        np.bitwise_or.at(bits, self._warp_start[active], np.uint64(1) << self._lane[active].astype(np.uint64))
        self._write(what.operands[0], bits[self._warp_start], active)

    def _warp_barrier(self, what: Instruction, active: Array) -> None:
        self._members(what, self._raw(what.operands[0], 32), active)
