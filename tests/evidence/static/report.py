"""Reports of cubins (by ``nvdisasm`` and ``cuobjdump``) and of AMD's assembly."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.evidence.static.occupancy import amd_occupancy, occupancy
from tests.evidence.toolchain import nvidia_tool


@dataclass(frozen=True)
class Report:
    """One kernel for one target; ``loads`` and ``stores`` count instructions on global memory by width in bytes."""

    target: str
    registers: int
    spills: int  # instructions that move registers to local memory or back
    scratch: int  # bytes of local memory (stack, spills) a thread
    shared: int
    occupancy: float
    loads: dict[int, int]
    stores: dict[int, int]

    @property
    def widest(self) -> int:
        """Bytes of the widest access."""
        return max([0, *self.loads, *self.stores])


_ACCESS = re.compile(r"\b(LDG|STG|LDL|STL)((?:\.[A-Z0-9_]+)*)\b")
_USAGE = re.compile(r"Function ([\w$]+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([nvidia_tool(tool), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _width(modifiers: str) -> int:
    named = [_WIDTHS[part] for part in modifiers.split(".") if part in _WIDTHS]
    return named[0] if named else 4


def cubin_reports(cubin: bytes, target: str, threads: int, dynamic_shared: int = 0) -> dict[str, Report]:
    """Reports of the kernels in a cubin, by name.

    Args:
        cubin: its bytes.
        target: what it was made for, such as ``sm_90``.
        threads: of a block.
        dynamic_shared: bytes of shared memory given at launch.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _run("cuobjdump", "-res-usage", str(path))
        code = _run("nvdisasm", "-c", str(path))
    sections = dict(re.findall(r"\.section\s+\.text\.([\w$]+)(.*?)(?=\.section\s|\Z)", code, re.S))
    reports = {}
    for name, registers, stack, shared, local in _USAGE.findall(usage):
        accesses = _ACCESS.findall(sections[name])
        by_kind = {kind: Counter(_width(mods) for op, mods in accesses if op == kind) for kind in ("LDG", "STG")}
        total = int(shared) + dynamic_shared
        reports[name] = Report(
            target,
            int(registers),
            sum(op in ("LDL", "STL") for op, _ in accesses),
            int(stack) + int(local),
            total,
            occupancy(target, int(registers), total, threads),
            dict(by_kind["LDG"]),
            dict(by_kind["STG"]),
        )
    return reports


_AMD_WIDTHS = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "short": 2, "dword": 4}
_AMD_ACCESS = re.compile(
    r"\b(?:global|buffer)_(load|store)_(ubyte|sbyte|byte|ushort|sshort|short|dword)(?:x(\d))?(_d16)?"
)


def amd_report(assembly: str, threads: int, lds: int, target: str = "gfx942") -> Report:
    """Report of one kernel's assembly."""

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if found is None:
            raise ValueError(f"assembly: has no .{name}")
        return int(found[1])

    counts: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for kind, unit, times, _ in _AMD_ACCESS.findall(assembly):
        counts[kind][_AMD_WIDTHS.get(unit, 2) * int(times or 1)] += 1
    return Report(
        target,
        number("vgpr_count"),
        number("vgpr_spill_count") + number("sgpr_spill_count"),
        number("private_segment_fixed_size"),
        lds,
        amd_occupancy(number("vgpr_count"), lds, threads),
        dict(counts["load"]),
        dict(counts["store"]),
    )
