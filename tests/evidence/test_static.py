"""Static reports see registers that spill and accesses that are narrow, and their occupancy is NVIDIA's."""

from __future__ import annotations

import pytest
import torch

from tests.evidence.nvcc import compile_cuda
from tests.evidence.static.occupancy import amd_occupancy, occupancy
from tests.evidence.static.report import cubin_reports
from tests.evidence.toolchain import require_disassembler, require_nvcc, require_triton
from tests.evidence.triton_compile import NVIDIA_TARGETS


@pytest.mark.parametrize(
    ("target", "registers", "shared", "threads", "expected"),
    [  # NVIDIA's occupancy calculator
        ("sm_80", 32, 0, 128, 1.0),
        ("sm_80", 64, 0, 256, 0.5),
        ("sm_80", 255, 0, 256, 0.125),
        ("sm_80", 40, 0, 128, 0.75),
        ("sm_80", 32, 40 * 1024, 256, 0.5),
        ("sm_90", 128, 0, 128, 0.25),
        ("sm_90", 32, 0, 32, 0.5),
        ("sm_100", 16, 100 * 1024, 1024, 1.0),
    ],
)
def test_occupancy(target, registers, shared, threads, expected):
    assert occupancy(target, registers, shared, threads) == expected


def test_amd_occupancy():
    assert amd_occupancy(64, 0, 256) == 1.0
    assert amd_occupancy(128, 0, 256) == 0.5
    assert amd_occupancy(64, 32 * 1024, 256) == 0.25


def _launch(kernel: str, width: int, offset: int = 0):
    require_triton()
    from tests.evidence.interpreter import audited
    from tests.evidence.planted import triton_kernels as planted

    x, s, t = (torch.zeros(16 * width + offset)[offset:].view(16, width) for _ in range(3))
    with audited() as audits:
        planted.launch(getattr(planted, kernel), x, s, t)
    return audits[0].launch


@pytest.mark.parametrize("target", NVIDIA_TARGETS)
def test_wide_accesses_where_memory_is_aligned_and_narrow_ones_where_not(target):
    from tests.evidence.static_run import report_launch

    aligned = report_launch(_launch("correct", 256), target)
    assert set(aligned.loads) == {16} and 16 in aligned.stores
    assert aligned.spills == aligned.scratch == 0 and aligned.occupancy >= 0.5
    assert max(report_launch(_launch("correct", 256, offset=1), target).loads) == 4


def test_amd_wide_accesses():
    from tests.evidence.static_run import report_launch

    report = report_launch(_launch("correct", 256), "gfx942")
    assert set(report.loads) == {16} and report.scratch == report.spills == 0 and report.registers > 0


@pytest.mark.parametrize("target", [*NVIDIA_TARGETS, "gfx942"])
def test_it_sees_spills(target):
    require_triton()
    from tests.evidence.interpreter import audited
    from tests.evidence.planted import triton_kernels as planted
    from tests.evidence.static_run import report_launch

    x, y = torch.zeros(128 * 1024), torch.zeros(128 * 1024)
    with audited() as audits:
        planted.spills[(1,)](x, y, N=8, BLOCK=16384, num_warps=4 if target != "gfx942" else 2)
    report = report_launch(audits[0].launch, target)
    assert report.spills > 0 and report.scratch > 0 and report.occupancy < 0.5


@pytest.mark.parametrize("target", NVIDIA_TARGETS)
def test_cuda_kernels_are_told_apart(target):
    require_nvcc()
    require_disassembler()
    cubin = compile_cuda("tests/evidence/planted/cuda_kernels.cu", target, "cubin")
    reports = cubin_reports(cubin, target, threads=128)
    assert len(reports) == 2
    for report in reports.values():
        assert set(report.loads) == {16} and 16 in report.stores and report.spills == 0 and report.shared >= 16
