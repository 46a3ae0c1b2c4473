"""The executor: control flow, barriers of a block, and which instruction does what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tests.evidence.ptx.accesses import Accesses
from tests.evidence.ptx.approximate import Approximations
from tests.evidence.ptx.arithmetic import Arithmetic, Unsupported
from tests.evidence.ptx.memory import GlobalMemory, Sectors
from tests.evidence.ptx.parse import Instruction, Kernel
from tests.evidence.ptx.threads import PRED, Array, Fault
from tests.evidence.ptx.values import encode
from tests.evidence.shadow import Finding, Usage

_MOST_THREADS = 1 << 15  # executed at once
_MOST_STEPS = 10**6
_IGNORED = {"membar", "fence", "prefetch", "prefetchu", "createpolicy", "griddepcontrol", "nanosleep", "applypriority"}


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


class _Machine(Accesses):
    """Runs the code on all threads."""

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
            guard = self._read_name(what.guard, PRED)
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
