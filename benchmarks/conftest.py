"""Refuses to measure where figures would mean nothing; collects rows and writes them once all of them hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import _environment
from benchmarks._measure import self_check
from benchmarks._results import AGAIN, RESULTS, UNVERIFIED, Row, write_rows
from benchmarks.cases import by_file
from benchmarks.operator_table import render

_ROWS = pytest.StashKey[dict[str, list[Row]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hybridkern benchmarks")
    group.addoption("--bench-rounds", type=int, default=41, help="interleaved rounds, at least 15 (default 41)")
    group.addoption("--bench-seconds", type=float, default=0.02, help="length of a measurement (default 0.02)")
    group.addoption("--bench-results", type=Path, default=RESULTS, help=f"folder of results (default {RESULTS})")


def pytest_configure(config: pytest.Config) -> None:
    reason = _environment.refusal()
    if reason is not None and not config.option.collectonly:
        raise pytest.UsageError(reason)
    config.stash[_ROWS] = {file: [] for file in by_file()}


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(_environment.THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> dict[str, list[Row]]:
    """Where a benchmark puts its rows, by the file they go to."""
    return request.config.stash[_ROWS]


def doubt(rows: Sequence[Row], wanted: set[str]) -> str | None:
    """Why these rows may not replace the published ones; ``None`` if they may."""
    if {row.benchmark for row in rows} != wanted:
        return "not all benchmarks were run"
    held = all(self_check(float(row.ratio_to_ours)) for row in rows if row.side == AGAIN)
    return None if held else "not all benchmarks held"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Writes every file of results of which something was measured."""
    for file, rows in config.stash.get(_ROWS, {}).items():
        if not rows:
            continue
        reason = doubt(rows, {case.name for case in by_file()[file]})
        path = (config.option.bench_results if reason is None else UNVERIFIED) / file
        write_rows(path, rows)
        terminalreporter.section(f"{file}: ours against the others, interleaved")
        terminalreporter.write_line(render(rows))
        note = "" if reason is None else f" ({reason}: the published results stay as they were)"
        terminalreporter.write_line(f"results: {path}{note}")
