"""The CUDA C++ kernels on the page of evidence: what nvcc makes of them, and the traffic of their PTX."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tests.evidence.cuda_library import SOURCES, architectures, reports_of
from tests.evidence.cuda_run import Run, demangled
from tests.evidence.cuda_subjects import INSTANTIATIONS, MAIN, SHARED, Case, Subject, run, traffic
from tests.evidence.static.report import Report

CASE = INSTANTIATIONS[0]
_HEADER = (
    "| kernel | operator | traffic / minimum | registers | widest access | occupancy | spills |",
    "|---|---|---|---|---|---|---|",
)


@cache
def reports(target: str) -> dict[str, Report]:
    """What the code for this target uses, by the kernel's C++ name."""
    return {demangled(name): report for source in SOURCES for name, report in reports_of(source, target).items()}


def rows_of(subject: Subject, case: Case = CASE) -> Iterator[str]:
    """A row for each kernel that forward and backward launch."""
    for one in run(subject, case):
        own = [reports(target)[one.kernel] for target in architectures()]
        cells = (
            f"`{one.kernel}`",
            subject.name,
            _traffic(one, subject),
            " / ".join(str(report.registers) for report in own),
            " / ".join(f"{report.widest} B" for report in own),
            " / ".join(f"{report.occupancy:.0%}" for report in own),
            " / ".join(str(report.spills) for report in own),
        )
        yield "| " + " | ".join(cells) + " |"


def _traffic(one: Run, subject: Subject) -> str:
    """Of nothing is claimed where every row reads the parameters again, from a cache that is not modelled."""
    return "not counted" if subject is SHARED and "forward" in one.kernel else f"{traffic([one]):.3f}"


def section() -> str:
    """The part of the page."""
    lines = [row for subject in (*MAIN, SHARED) for row in rows_of(subject)]
    targets = " / ".join(architectures())
    return "\n".join(
        [
            "\n## CUDA C++ kernels\n",
            f"Arguments: {CASE.label}. The library's PTX is one for all, of compute_80: sizes as it is translated for",
            f"{targets}, traffic as it is executed. A launch a row; the second stages of sums (`hk_finish`) touch",
            "a few numbers: their ratio says nothing. Where parameters are shared and x is in half precision, the",
            "traffic of backward is up to 1.19 of the least: a thread's eight sums in float32 are two accesses that",
            "touch each sector twice. Its forward's is not counted: every row reads the parameters again, from a cache",
            "that is not modelled.\n",
            *_HEADER,
            *lines,
            "",
        ]
    )
