"""Refuses to measure where figures would mean nothing; collects rows and writes them once all of them hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import _environment
from benchmarks._results import RESULTS, UNVERIFIED, Row, write_rows
from benchmarks.cases import all_cases
from benchmarks.table import render

_ROWS = pytest.StashKey[list[Row]]()
_WRITTEN = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hybridkern benchmarks")
    group.addoption("--bench-rounds", type=int, default=41, help="interleaved rounds, at least 15 (default 41)")
    group.addoption("--bench-seconds", type=float, default=0.02, help="length of a measurement (default 0.02)")
    group.addoption("--bench-results", type=Path, default=RESULTS, help=f"file of results (default {RESULTS})")


def pytest_configure(config: pytest.Config) -> None:
    reason = _environment.refusal()
    if reason is not None and not config.option.collectonly:
        raise pytest.UsageError(reason)
    config.stash[_ROWS] = []


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(_environment.THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """Where a benchmark puts its rows."""
    return request.config.stash[_ROWS]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    rows = session.config.stash.get(_ROWS, [])
    if not rows:
        return
    complete = {row.benchmark for row in rows} == {case.name for case in all_cases()}
    if complete and exitstatus == 0:
        path, note = session.config.option.bench_results, ""
    else:
        why = "not all benchmarks were run" if exitstatus == 0 else "not all benchmarks held"
        path, note = UNVERIFIED, f" ({why}: the published results stay as they were)"
    write_rows(path, rows)
    session.config.stash[_WRITTEN] = f"results: {path}{note}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("ours against the others, interleaved")
        terminalreporter.write_line(render(rows))
        terminalreporter.write_line(config.stash.get(_WRITTEN, ""))
