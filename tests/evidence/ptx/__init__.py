"""Executes compiled PTX, Triton's or nvcc's, on a CPU: all threads of many blocks at once, in NumPy.

What it checks: the numbers, with the hardware's approximate functions off by as much as NVIDIA documents; bounds and
alignment of every access; races in shared memory and between blocks; reads of shared memory that nobody wrote; lanes
missing from a shuffle; barriers that some threads never reach. What it counts: 32-byte sectors of global memory.
"""

from tests.evidence.ptx.machine import Execution, execute
from tests.evidence.ptx.parse import Kernel, parse, split
from tests.evidence.ptx.threads import Fault

__all__ = ["Execution", "Fault", "Kernel", "execute", "parse", "split"]
