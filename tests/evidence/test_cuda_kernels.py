"""The CUDA kernels as nvcc compiles them: no spills, 16-byte accesses where memory is aligned, half of the threads."""

from __future__ import annotations

import re

import pytest

from tests.evidence.cuda_library import SOURCES, architectures, reports_of
from tests.evidence.toolchain import require_nvcc, require_triton

DOUBLE = re.compile(r"IddL|3AnyIdE|finish_\w+IdE")  # of the mangled names
# Four numbers of x in float32 are 16 bytes to a thread, and what it writes are their four gradients in half precision.
HALVES_ALONE = re.compile(r"rounding_coupling_backwardIfNS_\d(F16|Bf16)")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.split("/")[-2])
def test_compiled_they_fit(source: str) -> None:
    require_nvcc()
    require_triton()  # for the disassembler; and in `make evidence` alone, since it takes a minute
    assert architectures() == ("sm_80", "sm_90", "sm_100")
    for target in architectures():
        reports = reports_of(source, target)
        assert reports
        for name, report in reports.items():
            assert report.spills == report.scratch == 0, (name, report)
            # float64 is for checking, not for speed
            assert report.occupancy >= (0.25 if DOUBLE.search(name) else 0.5), (name, report)
            # Any<T>: the path of memory that is not aligned; hk_finish_: the second stage of a sum
            if "3Any" not in name and "hk_finish_" not in name:
                assert 16 in report.loads, (name, report)
                assert (8 if HALVES_ALONE.search(name) else 16) in report.stores, (name, report)
