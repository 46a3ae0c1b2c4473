"""The CUDA kernels under evidence: operators and arguments, run as the kernels' PTX and compared with float64."""

from __future__ import annotations

import torch

import hybridkern
from tests.evidence.cuda_run import Run, executed
from tests.evidence.subjects import ALIGNED, BF16, F16, F32, REDUCTIONS, Case, Subject, coupling, logistic, rounding
from tests.ops import layouts, oracle

F64 = torch.float64
_SHAPE = ALIGNED[0].shape
# Every instantiation of a kernel for aligned memory.
INSTANTIATIONS = (
    *(case for case in ALIGNED if case.layout == "contiguous"),
    Case(_SHAPE, F32, F16),
    Case(_SHAPE, BF16, BF16),
    Case(_SHAPE, F16, F16),
    Case(_SHAPE, F64, F64),
)
SMALL = Case((5, 4, 4, 4))  # rows of few vectors, several for a warp
MANY_ROWS = Case((512, 4, 11, 12))  # rows of a block each, and enough of them
ODD = Case((5, 3, 7, 5), F64, F64)
CHANNELS_LAST = next(case for case in ALIGNED if case.layout == "channels_last")
MAIN = (coupling("glow"), coupling("realnvp", inverse=True), rounding(beta=True), logistic("none"), logistic("sum"))
SHARED = logistic("none", shared=True)
VARIANTS = (
    *(coupling(form, inverse) for form in oracle.FORMS for inverse in (False, True)),
    *(rounding(beta, inverse) for beta in (False, True) for inverse in (False, True)),
    *(logistic(reduction, shared) for reduction in REDUCTIONS for shared in (False, True)),
)


def run(subject: Subject, case: Case) -> list[Run]:
    """Forward and backward, compared with float64; what was executed."""
    with executed() as runs, hybridkern.use_backend("cpp"):
        subject.check(subject.arguments(case), layouts.LAYOUTS[case.layout])
    return runs


def traffic(runs: list[Run]) -> float:
    """Bytes of the sectors moved, as a multiple of the least: every byte touched once by each kernel."""
    return sum(run.execution.sectors.bytes for run in runs) / sum(run.execution.touched for run in runs)
