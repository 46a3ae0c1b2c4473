"""The suite of a device: each check of ``python -m benchmarks.gpu`` by name, against float64.

``HYBRIDKERN_TEST_DEVICE=cuda python -m pytest tests/gpu`` runs it on a CUDA or ROCm device, at the sizes of one.
Without the variable a device is pretended: the same code runs on the CPU, on small tensors.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import correctness
from benchmarks.gpu.device import Device, PretendedDevice
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.rows import OK, Table, read
from benchmarks.gpu.sizes import TINY, Sizes
from tests.conftest import DEVICE

ON_GPU = DEVICE.type == "cuda"
MACHINE = Device() if ON_GPU else PretendedDevice()
SIZES = Sizes() if ON_GPU else TINY


@pytest.mark.parametrize("item", correctness.items(MACHINE, SIZES), ids=lambda item: item.name)
def test_against_float64(item: Item, tmp_path: Path) -> None:
    table = Table(tmp_path / "correctness.csv", correctness.COLUMNS)
    deadline = MACHINE.now() + 3600
    item.run(Context(MACHINE, SIZES, tmp_path, table, Journal(tmp_path / "journal.txt"), deadline, {}))
    rows = read(tmp_path / "correctness.csv")
    assert rows and all(row["status"] == OK for row in rows), rows
    assert all(float(row["worst"] or 0) <= 1 for row in rows)
    MACHINE.forget()
