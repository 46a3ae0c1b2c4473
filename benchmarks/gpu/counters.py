"""What the hardware counts in the kernels, where Nsight Compute is installed and permitted."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from functools import partial

from benchmarks._results import ROOT
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.rows import SKIPPED
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.works import works

METRICS = {
    "dram_bytes": "dram__bytes.sum",
    "l2_sectors": "lts__t_sectors.sum",
    "issue_active": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "nanoseconds": "gpu__time_duration.sum",
}
COLUMNS = ("kernel", *METRICS)
_CHOSEN = ("coupling_network", "affine_coupling", "paired_conv1x1", "discretized_logistic")


def items(device: Device, sizes: Sizes) -> list[Item]:
    """The first work of each of some operators."""
    found = []
    for op in _CHOSEN:
        name = next(work.name for work in works(sizes) if work.op == op)
        found.append(Item(name, partial(_count, name)))
    return found


def _count(name: str, context: Context) -> None:
    ncu = shutil.which("ncu")
    if ncu is None or not context.device.is_gpu:
        context.table.add(name, SKIPPED, "ncu is not on this machine")
        return
    command = [ncu, "--csv", "--page", "raw", "--target-processes", "all", "--profile-from-start", "off"]
    command += ["--metrics", ",".join(METRICS.values()), sys.executable, "-m", "benchmarks.gpu.once", name]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, context.time_left()), check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode or not lines:
        raise RuntimeError(f"ncu ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
    for row in csv.DictReader(lines):
        if row.get("Kernel Name"):
            context.add(name, kernel=row["Kernel Name"][:120], **{k: row.get(m, "") for k, m in METRICS.items()})
