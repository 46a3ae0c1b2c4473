"""The PTX that the CUDA library is built of, executed: numbers, faults, traffic; and faults planted in it are found."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

import hybridkern
from tests.evidence.toolchain import require_nvcc, require_triton

require_triton(module=True)
require_nvcc(module=True)

from tests.evidence import cuda_run  # noqa: E402
from tests.evidence.cuda_subjects import (  # noqa: E402
    CHANNELS_LAST,
    F64,
    INSTANTIATIONS,
    MAIN,
    MANY_ROWS,
    ODD,
    SHARED,
    SMALL,
    VARIANTS,
    Case,
    Subject,
    run,
    traffic,
)
from tests.evidence.ptx import parse  # noqa: E402
from tests.evidence.shadow import of_kind  # noqa: E402
from tests.evidence.subjects import AWKWARD, BF16, F16  # noqa: E402
from tests.ops.layouts import contiguous  # noqa: E402

TRAFFIC = 1.02
MOST = pytest.mark.parametrize("subject", MAIN, ids=lambda subject: subject.name)


def _check(subject: Subject, case: Case) -> list[cuda_run.Run]:
    runs = run(subject, case)
    assert runs, "no kernel was launched"
    assert [finding for one in runs for finding in one.execution.findings] == []
    assert sum(one.execution.atomics for one in runs) == 0
    return runs


def _assert_traffic(runs: list[cuda_run.Run], case: Case) -> None:
    """Least traffic, and no kernel for memory that is not aligned.

    In float64 the C library's functions branch, and the executor joins threads again later than a GPU does: then an
    access counts for each part of its warp.
    """
    assert not any("Any" in one.kernel for one in runs), [one.kernel for one in runs]
    if case.dtype is not F64:
        assert traffic(runs) <= TRAFFIC, {one.kernel: one.execution.sectors for one in runs}


@pytest.mark.parametrize("case", INSTANTIATIONS, ids=lambda case: case.label)
@MOST
def test_it_is_right_and_moves_no_more_than_it_must(subject: Subject, case: Case, poisoned_memory: None) -> None:
    _assert_traffic(_check(subject, case), case)


@pytest.mark.parametrize("subject", MAIN[:3], ids=lambda subject: subject.name)
def test_so_it_does_in_channels_last(subject: Subject, poisoned_memory: None) -> None:
    """Not the densities: gradients of their parameters are contiguous by contract, and so written one by one."""
    _assert_traffic(_check(subject, CHANNELS_LAST), CHANNELS_LAST)


@pytest.mark.parametrize("case", INSTANTIATIONS, ids=lambda case: case.label)
def test_backward_of_shared_parameters_moves_no_more_than_it_must(case: Case, poisoned_memory: None) -> None:
    """Forward reads the parameters again for every row: from a cache, on which nothing is claimed here.

    Nor is it of x in half precision: a thread's eight sums in float32 are two accesses that touch each sector twice.
    """
    runs = [one for one in _check(SHARED, case) if "forward" not in one.kernel]
    assert len(runs) == 2
    if case.dtype not in (BF16, F16):
        _assert_traffic(runs, case)


@pytest.mark.parametrize("case", [SMALL, AWKWARD[0]], ids=lambda case: case.label)
@pytest.mark.parametrize("subject", VARIANTS, ids=lambda subject: subject.name)
def test_every_variant_is_right(subject: Subject, case: Case, poisoned_memory: None) -> None:
    aligned = all("Any" not in one.kernel for one in _check(subject, case) if "finish" not in one.kernel)
    assert aligned == (case is SMALL)


@pytest.mark.parametrize("case", [*AWKWARD[1:], ODD], ids=lambda case: case.label)
@MOST
def test_it_is_right_for_awkward_arguments(subject: Subject, case: Case, poisoned_memory: None) -> None:
    _check(subject, case)


def test_rows_enough_for_all_blocks_are_summed_in_one_launch(poisoned_memory: None) -> None:
    assert [one.kernel.split("<")[0] for one in _check(MAIN[0], MANY_ROWS)] == [
        "hk_affine_coupling_forward",
        "hk_affine_coupling_backward",
    ]


# Pattern in the PTX, what stands in its place, and the kind of finding it must lead to; "": wrong numbers.
FAULTS = {
    "missing_barrier": (r"bar\.sync", "membar.cta; //", "race"),
    "store_beyond_the_end": (r"(st\.global\.v4\.f32\s+\[%rd\d+)\]", r"\1+16]", "out of bounds"),
    "wrong_constant": ("0fBF318000", "0fBF317F00", ""),  # -log(2), the upper part of it, in the exponential
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_put_into_the_code_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, instead, kind = FAULTS[name]
    changed = {key: re.sub(pattern, instead, text) for key, text in cuda_run.texts().items()}
    subject, case = MAIN[0], Case((2, 4, 32, 32))
    monkeypatch.setattr(cuda_run, "kernel", lambda name: parse(changed[name]))
    right = False
    with cuda_run.executed() as runs, hybridkern.use_backend("cpp"), suppress(AssertionError):
        subject.check(subject.arguments(case), contiguous)
        right = True
    findings = [finding for one in runs for finding in one.execution.findings]
    assert of_kind(findings, kind) if kind else (findings == [] and not right)
