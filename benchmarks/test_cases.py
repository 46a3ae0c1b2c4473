"""Times every case: ours, ours again, the eager formula, ``torch.compile`` of it and the floor, in turn.

The comparison comes from the interleaved rounds, and goes into ``extra_info`` and the file of results. The figures
of pytest-benchmark's own table are of ours alone, run by itself afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from benchmarks import _environment
from benchmarks._case import Case
from benchmarks._measure import SELF_TOLERANCE, Timing, interleave, self_check
from benchmarks._results import AGAIN, FLOOR, OURS, Row
from benchmarks.cases import by_file

_ATTEMPTS = 3

# so that a case that fails before it is timed shows its own error
pytestmark = pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")


CASES = [pytest.param(file, case, id=case.name) for file, cases in by_file().items() for case in cases]


@pytest.mark.parametrize(("file", "case"), CASES)
def test_case(file: str, case: Case, benchmark: Any, rows: dict[str, list[Row]], pytestconfig: pytest.Config) -> None:
    torch.compiler.reset()
    sides = case.build()
    sides.check()
    # A neighbour on the machine may disturb a run; one that did not pass its own check says nothing.
    options = pytestconfig.option
    for _ in range(_ATTEMPTS):
        timings = interleave(sides.run, rounds=options.bench_rounds, seconds=options.bench_seconds)
        ratio = timings[AGAIN].median / timings[OURS].median
        if self_check(ratio):
            break
    measured = make_rows(case, timings, sides.traffic)
    rows[file].extend(measured)
    benchmark.extra_info.update(
        {row.side: [row.median_us, row.q1_us, row.q3_us, row.ratio_to_ours] for row in measured}
    )
    benchmark.pedantic(sides.run[OURS], rounds=timings[OURS].rounds, iterations=timings[OURS].calls, warmup_rounds=1)
    assert self_check(ratio), f"the same function against itself: {ratio:.3f}, expected 1 +- {SELF_TOLERANCE}"


def make_rows(case: Case, timings: Mapping[str, Timing], traffic: int | None) -> list[Row]:
    """The lines of one case for the file of results."""
    conditions = _environment.conditions()
    made = []
    for side, timing in timings.items():
        moved = "" if traffic is None else f"{traffic / timing.median:.4g}"
        made.append(
            Row(
                benchmark=case.name,
                side=side,
                median_us=f"{timing.median * 1e6:.2f}",
                q1_us=f"{timing.q1 * 1e6:.2f}",
                q3_us=f"{timing.q3 * 1e6:.2f}",
                rounds=str(timing.rounds),
                ratio_to_ours=f"{timing.median / timings[OURS].median:.3f}",
                bytes_per_s=moved,
                target=str(case.targets.get(side, "")),
                **conditions,
            )
        )
    assert traffic is None or FLOOR in timings
    return made
