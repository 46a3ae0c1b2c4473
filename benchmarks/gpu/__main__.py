"""``python -m benchmarks.gpu``: on a CUDA or ROCm machine, first the operator tests, then every measurement.

Each operator and a whole Glow step, forward, backward and both, in turn: this package, the field's formula in plain
PyTorch, and ``torch.compile`` of that. Times are medians of CUDA events; the L2 cache is overwritten before each.
Writes a CSV with the names and versions of the machine, and two pictures. Ends with 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks._measure import SELF_TOLERANCE
from benchmarks._results import ROOT, Record, write_csv
from benchmarks.gpu.cases import Sizes, all_cases
from benchmarks.gpu.device import Device
from benchmarks.gpu.results import disturbed, draw_bandwidth, draw_ratios, make_rows
from benchmarks.plot import save

_COLUMNS = ("work", "phase", "side", "median_us", "ratio_to_ours", "share_of_copy", "peak_bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-gpu", help="folder (default runs/bench-gpu)")
    parser.add_argument("--rounds", type=int, default=31, help="interleaved rounds, at least 15 (default 31)")
    parser.add_argument("--no-tests", action="store_true", help="measure without testing first")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--warm-l2", action="store_true", help="do not overwrite the L2 cache between measurements")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no measurement: torch sees no CUDA or ROCm device on this machine", file=sys.stderr)
        return 2
    if not options.no_tests and (code := run_tests("cuda")):
        print(f"no measurement: the operator tests failed on this GPU (pytest ended with {code})", file=sys.stderr)
        return 1
    device = Device("cuda", flush=not options.warm_l2)
    rows = measure(device, Sizes(), options.rounds, compiled=not options.no_compile)
    write_csv(options.out / "gpu.csv", rows)
    save(draw_ratios(rows), options.out / "ratios.png")
    save(draw_bandwidth(rows), options.out / "bandwidth.png")
    print(f"results: {options.out / 'gpu.csv'}, ratios.png and bandwidth.png")
    for line in disturbed(rows, SELF_TOLERANCE):
        print(f"DISTURBED, ours against itself must be 1 +- {SELF_TOLERANCE}: {line}")
    return 0


def run_tests(device: str, *flags: str) -> int:
    """The operator tests with their tensors on ``device``; pytest's exit status."""
    environment = {**os.environ, "HYBRIDKERN_TEST_DEVICE": device, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    command = [sys.executable, "-m", "pytest", "tests/ops", "-q", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def measure(device: Device, sizes: Sizes, rounds: int, *, compiled: bool) -> list[Record]:
    """Every case, printed as it comes."""
    conditions = device.conditions()
    copy = device.copy_bandwidth(sizes.copy, rounds)
    print(", ".join(f"{key} {value}" for key, value in conditions.items() if value))
    print("\t".join(_COLUMNS))
    rows: list[Record] = []
    for case in all_cases(device, sizes, compiled=compiled):
        timings = device.interleave(case.sides, rounds)
        peaks = {side: device.peak(piece) for side, piece in case.sides.items()}
        made = make_rows(case, timings, peaks, copy, conditions)
        for row in made:
            print("\t".join(row[column] for column in _COLUMNS), flush=True)
        rows += made
    return rows


if __name__ == "__main__":
    sys.exit(main())
