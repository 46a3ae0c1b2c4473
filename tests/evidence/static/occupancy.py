"""How many threads of a kernel fit on a multiprocessor at once.

Limits: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"; AMD Instinct MI300 ISA.
"""

from __future__ import annotations

from typing import NamedTuple


class Multiprocessor(NamedTuple):
    """Per multiprocessor: 32-bit registers, bytes of shared memory, threads, blocks; reserved bytes a block."""

    registers: int
    shared: int
    threads: int
    blocks: int
    reserved: int = 1024


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(65536, 164 * 1024, 2048, 32),
    "sm_90": Multiprocessor(65536, 228 * 1024, 2048, 32),
    "sm_100": Multiprocessor(65536, 228 * 1024, 2048, 32),
}
_WARP = 32
_REGISTER_UNIT = 256  # registers are handed to a warp in these portions
_SCHEDULERS = 4  # each with a quarter of the registers
_SHARED_UNIT = 128


def occupancy(target: str, registers: int, shared: int, threads: int) -> float:
    """Share of the threads of a multiprocessor that can be resident.

    Args:
        target: ``sm_80``, ``sm_90`` or ``sm_100``.
        registers: a thread's.
        shared: bytes of a block, static and dynamic.
        threads: of a block.
    """
    limits = MULTIPROCESSORS[target]
    warps = -(-threads // _WARP)
    per_warp = -(-max(registers, 1) * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = limits.registers // _SCHEDULERS // per_warp * _SCHEDULERS // warps
    by_shared = limits.shared // (-(-(shared + limits.reserved) // _SHARED_UNIT) * _SHARED_UNIT)
    blocks = min(by_registers, by_shared, limits.threads // (warps * _WARP), limits.blocks)
    return blocks * warps * _WARP / limits.threads


_VGPRS, _VGPR_UNIT, _WAVES = 512, 8, 8  # CDNA3: a lane's of one SIMD, vector and accumulation together; waves a SIMD
_LDS, _SIMDS = 64 * 1024, 4


def amd_occupancy(vgprs: int, lds: int, threads: int) -> float:
    """Share of the waves of a compute unit of CDNA3 (gfx942) that can be resident."""
    waves = -(-threads // 64)
    by_registers = min(_WAVES, _VGPRS // (-(-max(vgprs, 1) // _VGPR_UNIT) * _VGPR_UNIT)) * _SIMDS
    groups = by_registers // waves
    if lds:
        groups = min(groups, _LDS // lds)
    return groups * waves / (_WAVES * _SIMDS)
