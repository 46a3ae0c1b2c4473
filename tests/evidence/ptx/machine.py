"""The executor: registers, control flow, memory and the instructions by which threads talk to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tests.evidence.ptx.approximate import Approximations
from tests.evidence.ptx.arithmetic import Arithmetic, Unsupported, compare
from tests.evidence.ptx.memory import GlobalMemory, Sectors, SharedMemory
from tests.evidence.ptx.parse import Instruction, Kernel
from tests.evidence.ptx.values import Type, decode, encode, unsigned
from tests.evidence.shadow import ATOMIC, LOAD, STORE, Finding, Usage

Array = np.ndarray
WARP = 32
_MOST_THREADS = 1 << 15  # executed at once
_MOST_STEPS = 10**6
_POISON = 2**64 - 1  # what a register holds that nobody wrote: NaN, and an index out of all bounds
_PRED, _F64 = Type("pred", 1), Type("f", 64)
_MASKS = {"shfl": 4, "vote": 2, "bar": 0, "barrier": 0}  # which operand names the lanes that must be there
_IGNORED = {"membar", "fence", "prefetch", "prefetchu", "createpolicy", "griddepcontrol", "nanosleep", "applypriority"}


class Fault(Exception):
    """The code did something after which nothing can be said any more."""


@dataclass(frozen=True)
class Execution:
    """What an execution found, the traffic it caused, and the number of instructions of warps.

    ``touched``: bytes read and bytes written, each counted once: the least traffic for what was done. ``moved`` and
    ``usage``: by argument, the bytes of its sectors and how often its bytes were touched.
    """

    findings: tuple[Finding, ...]
    sectors: Sectors
    touched: int
    instructions: int
    atomics: int
    moved: Mapping[str, int]
    usage: Mapping[str, Usage]


def execute(
    kernel: Kernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int] | int,
    parameters: Sequence[bytes],
    tensors: Mapping[str, Tensor],
    shared: int = 0,
    seed: int | None = 0,
) -> Execution:
    """Runs a kernel on CPU tensors, in place.

    Args:
        kernel: as parsed.
        grid: blocks in each dimension.
        block: threads of a block.
        parameters: the raw bytes of each parameter, in order; those left out are zero.
        tensors: what the kernel may touch: the elements of these views.
        shared: bytes of dynamic shared memory.
        seed: of the errors of approximate functions, ``None`` for none.

    Raises:
        Fault: a barrier that some threads never reach, a misaligned address, an instruction that is not known...
    """
    shape = (block, 1, 1) if isinstance(block, int) else block
    memory = GlobalMemory(tensors)
    raw = np.zeros(kernel.parameter_bytes, np.uint8)
    for (offset, size), value in zip(kernel.parameters.values(), parameters, strict=False):
        if len(value) != size:
            raise Fault(f"{kernel.name}: a parameter of {size} bytes was given {len(value)}")
        raw[offset : offset + size] = np.frombuffer(value, np.uint8)
    total, threads = int(np.prod(grid)), int(np.prod(shape))
    step = max(1, _MOST_THREADS // threads)
    findings: list[Finding] = []
    instructions = 0
    arithmetic = Arithmetic(Approximations(seed))
    for first in range(0, total, step):
        blocks = np.arange(first, min(first + step, total))
        machine = _Machine(kernel, grid, shape, blocks, raw, memory, shared, arithmetic)
        machine.run()
        findings += [f for f in machine.findings() if f not in findings]
        instructions += machine.instructions
    memory.shadow.finish()
    return Execution(
        tuple(memory.shadow.findings + findings),
        memory.sectors,
        memory.shadow.touched_bytes(),
        instructions,
        memory.shadow.atomics,
        memory.moved,
        memory.shadow.usage(),
    )


class _Machine:
    """Some blocks of a grid, all threads at once."""

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

    def run(self) -> None:
        """Until every thread has ended. Of the threads that may go on, those at the first instruction go first."""
        end = len(self.kernel.instructions)
        counter = np.zeros(self._count, np.int64)
        waiting = np.zeros(self._count, bool)
        self._held[:] = False
        for _ in range(_MOST_STEPS):
            ready = ~waiting & ~self._held & (counter < end)
            if not ready.any():
                if self._held.any():
                    at = int(counter[self._held].min())
                    what = self.kernel.instructions[at]
                    raise Fault(f"{self.kernel.name}: lanes named in the mask are missing: {what.text}")
                if not waiting.any():
                    return
                self._release(counter, waiting, end)
                continue
            at = int(counter[ready].min())
            active = (ready | self._held) & (counter == at)
            self._step(self.kernel.instructions[at], at, active, counter, waiting, end)
        raise Fault(f"{self.kernel.name}: not done after {_MOST_STEPS} steps")

    def _release(self, counter: Array, waiting: Array, end: int) -> None:
        for slot in np.unique(self._slot[waiting]):
            own = self._slot == slot
            if not waiting[own].all():
                raise Fault(f"{self.kernel.name}: a barrier is not reached by all threads of the block")
            if np.unique(counter[own]).size > 1:
                raise Fault(f"{self.kernel.name}: threads of a block wait at different barriers")
        self._shared.barrier(np.unique(self._slot[waiting]))
        waiting[:] = False

    def _step(self, what: Instruction, at: int, active: Array, counter: Array, waiting: Array, end: int) -> None:
        active = self._with_all_lanes(what, active)
        counter[active] += 1
        self.instructions += int(np.count_nonzero(np.logical_or.reduceat(active, self._warp_firsts)))
        if what.guard is not None:
            guard = self._read_name(what.guard, _PRED)
            active = active & (~guard if what.negated else guard)
        if not active.any() or what.name in _IGNORED:
            return
        if what.name == "bra":
            counter[active] = self.kernel.labels[what.operands[0]]
        elif what.name in ("ret", "exit"):
            counter[active] = end
        elif what.name in ("bar", "barrier") and "warp" not in what.modifiers:
            if "sync" not in what.modifiers:
                raise Fault(f"not supported: {what.text}")
            waiting[active] = True
        else:
            try:
                with np.errstate(all="ignore"):
                    self._execute(what, active)
            except (Unsupported, KeyError, ValueError) as error:
                raise Fault(f"not supported: {what.text} ({type(error).__name__}: {error})") from error

    def _execute(self, what: Instruction, active: Array) -> None:
        special = {
            "ld": self._load,
            "ldu": self._load,
            "st": self._store,
            "red": self._atomic,
            "atom": self._atomic,
            "ldmatrix": self._load_matrix,
            "stmatrix": self._store_matrix,
            "mma": self._multiply_matrices,
            "shfl": self._shuffle,
            "vote": self._vote,
            "activemask": self._active_mask,
            "bar": self._warp_barrier,
            "setp": self._set_predicates,
        }.get(what.name)
        if special is not None:
            special(what, active)
        elif what.name == "mov" and any(operand.startswith("{") for operand in what.operands):
            self._pack(what, active)
        else:
            kind, value = self._arithmetic(what, lambda i, t: self._read_name(what.operands[i], t))
            self._write(what.operands[0], encode(value, kind), active)

    # registers

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
            parts = _list(target)
            width = bits // len(parts)
            value = self._raw(source, bits).astype(np.uint64)
            for i, part in enumerate(parts):
                self._write(part, (value >> np.uint64(i * width)).astype(unsigned(width)), active)
            return
        parts = _list(source)
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
            operand = ~self._read_name(other[1:], _PRED) if other[0] == "!" else self._read_name(other, _PRED)
            with_other = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combine]
            value, opposite = with_other(value, operand), with_other(opposite, operand)
        for target, result in zip(what.operands[0].split("|"), (value, opposite), strict=False):
            self._write(target.strip(), result, active)

    # memory

    def _address(self, operand: str) -> Array:
        base, _, offset = operand.strip("[] ").replace(" ", "").partition("+")
        return self._raw(base, 64).astype(np.int64) + int(offset or 0)

    def _load(self, what: Instruction, active: Array) -> None:
        targets = _list(what.operands[0])
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
        sources = _list(what.operands[1])
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
        for number, target in enumerate(_list(what.operands[0])):
            data = np.zeros((self._count, 4), np.uint8)
            for address, part in self._matrix_parts(what, what.operands[1], number, active):
                size = part.stop - part.start
                data[active, part] = self._shared.load(
                    address[active], size, self._warp[active], self._slot[active], what.text
                )
            self._write(target, data.view(np.uint32)[:, 0], active)

    def _store_matrix(self, what: Instruction, active: Array) -> None:
        for number, source in enumerate(_list(what.operands[1])):
            data = np.ascontiguousarray(self._raw(source, 32)).view(np.uint8).reshape(self._count, 4)
            for address, part in self._matrix_parts(what, what.operands[0], number, active):
                self._shared.store(
                    address[active], data[active, part], self._warp[active], self._slot[active], what.text
                )

    # threads of a warp

    def _multiply_matrices(self, what: Instruction, active: Array) -> None:
        """``d = a b + c`` of a warp, float64, ``a`` 8 x 4: a lane has one number of ``a`` and ``b``, two of ``c``."""
        if "m8n8k4" not in what.modifiers or what.type != _F64:
            raise Unsupported(what.text)
        self._members(what, np.full(self._count, 0xFFFFFFFF, np.uint32), active)
        target, *sources = (_list(operand) for operand in what.operands)
        (a,), (b,), c = ([self._read_name(name, _F64) for name in names] for names in sources)
        rows, columns = a.reshape(-1, 8, 4), b.reshape(-1, 8, 4).swapaxes(1, 2)
        out = (rows @ columns + np.stack(c, 1).reshape(-1, 8, 8)).reshape(-1, 2)
        for name, value in zip(target, out.T, strict=True):
            self._write(name, encode(np.ascontiguousarray(value), _F64), active)

    def _with_all_lanes(self, what: Instruction, active: Array) -> Array:
        """Of the threads at an instruction that names lanes of the warp, those whose lanes are all there.

        The others are held until these come, as the hardware holds them.
        """
        place = _MASKS.get(what.name)
        if place is None or (what.name in ("bar", "barrier") and "warp" not in what.modifiers):
            return active
        taking = active
        if what.guard is not None:
            guard = self._read_name(what.guard, _PRED)
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
        value = ~self._read_name(source[1:], _PRED) if source[0] == "!" else self._read_name(source, _PRED)
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


def _list(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _updated(operation: str, old: Array, value: Array, third: Array) -> Array:
    if operation == "cas":
        return third if old == value else old
    if operation == "inc":
        return old + 1 if old < value else old * 0
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}
    return value if operation == "exch" else functions[operation](old, value)
