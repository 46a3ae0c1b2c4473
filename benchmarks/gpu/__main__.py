"""``python -m benchmarks.gpu``: on a machine with a GPU, everything that is to be known of it, within a budget.

Environment; correctness of every operator on the device against float64; times of the operators at Glow's sizes beside
eager PyTorch, as shares of the bandwidth of a copy; whole training steps of Glow beside eager PyTorch, normflows and
FrEIA; a profile; torch.compile. Rows are appended to CSV files in the folder as they come, and a failure is a row.
Needs Python with torch and triton, and nothing else: no network, no virtual environment. Ends with 2 where there is no
GPU, and with 1 where a kernel was found to be wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._results import ROOT
from benchmarks.gpu import kit, summary, supervisor
from benchmarks.gpu.device import Device, PretendedDevice
from benchmarks.gpu.plan import PHASES, phase_of
from benchmarks.gpu.sizes import TINY, Sizes
from benchmarks.gpu.supervisor import Run
from benchmarks.gpu.worker import work


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    kit.enter()
    options = _parser().parse_args(arguments)
    if not options.budget > 0:
        print(f"--budget: got {options.budget}, expected seconds, more than 0", file=sys.stderr)
        return 2
    if options.worker:
        name, share, deadline = options.worker
        return work(phase_of(name), int(share), Device(), Sizes(), options.out, float(deadline))
    if not options.pretend and not _has_gpu():
        print("no measurement: torch sees no CUDA or ROCm device on this machine", file=sys.stderr)
        return 2
    if options.out.exists() and any(options.out.iterdir()):
        print(f"--out: got {options.out}, which holds files, expected a new or an empty folder", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    device = PretendedDevice() if options.pretend else Device()
    sizes = TINY if options.pretend else Sizes()
    launch = (
        supervisor.in_this_process(device, sizes, options.out)
        if options.pretend
        else supervisor.in_processes(device, options.out, supervisor.own_command())
    )
    Run(device, sizes, options.out, options.budget, launch, together=not options.pretend).phases(PHASES)
    return summary.write(options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = ROOT / "runs" / "bench-gpu"
    parser.add_argument("--out", type=Path, default=out, help="folder of the results (default runs/bench-gpu)")
    parser.add_argument("--budget", type=float, default=supervisor.FULL, help="seconds in all (default 560)")
    parser.add_argument(
        "--pretend", action="store_true", help="tiny work on the CPU with a pretended clock: no time means anything"
    )
    parser.add_argument("--worker", nargs=3, metavar=("PHASE", "SHARE", "DEADLINE"), help=argparse.SUPPRESS)
    return parser


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
