"""Accelerated models of other libraries: the sides run, on tiny shapes; records, table and replacement in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _environment
from benchmarks._measure import Timing
from benchmarks._results import Record, read_csv
from benchmarks.glow.side import Architecture
from benchmarks.integrations import __main__ as command
from benchmarks.integrations import peaks, picture, table, vectors, works, zuko_works
from benchmarks.integrations.alone import networks_alone
from benchmarks.integrations.works import AGAIN, ALONE, BF16, FLOAT32, LIBRARY, NETWORKS, Work
from hybridkern.integrations import accelerate

TINY = Architecture((3, 8, 8), levels=2, steps=2, hidden=16)
BUILDERS = {
    "normflows": lambda: works.normflows_glow(TINY),
    "freia": lambda: works.freia_glow(TINY),
}


@pytest.mark.parametrize("library", BUILDERS)
def test_sides_run(library: str) -> None:
    work = Work("tiny", BUILDERS[library], (2, *TINY.shape), {FLOAT32: 1.0, ALONE: None, BF16: 1.0})
    sides = work.sides()
    assert list(sides) == [LIBRARY, AGAIN, FLOAT32, ALONE, BF16]
    for run in sides.values():
        run()


@pytest.mark.parametrize("build", [works.normflows_vectors, works.nflows_vectors, works.freia_vectors])
def test_vectors_run(build: object) -> None:
    sides = Work("vectors", build, (3, works.DIM), {FLOAT32: 1.5, ALONE: None}).sides()  # type: ignore[arg-type]
    sides[FLOAT32]()
    sides[ALONE]()


FLOWS = (vectors.nflows_nsf, vectors.normflows_nsf, vectors.nflows_maf, vectors.normflows_maf)


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("build", FLOWS)
def test_splines_and_masked_flows_run(build: Any) -> None:
    work = Work("flows", lambda: build(4, 8, 2), (3, 4), {FLOAT32: 1.5, ALONE: None, NETWORKS: None})
    for run in work.sides().values():
        run()
    samples = Work("samples", lambda: build(4, 8, 2), (3, 4), {FLOAT32: 1.5}, vectors.sample).sides()
    assert list(samples) == [LIBRARY, AGAIN, FLOAT32]
    for run in samples.values():
        run()


@pytest.mark.parametrize("build", [zuko_works.nsf, zuko_works.maf, zuko_works.nice])
def test_flows_of_zuko_run(build: object) -> None:
    sides = zuko_works.ZukoWork("zuko", build, (3, zuko_works.DIM), {FLOAT32: 1.5, ALONE: None}).sides()  # type: ignore[arg-type]
    for run in sides.values():
        run()
    samples = zuko_works.ZukoWork("zuko", build, (3, zuko_works.DIM), {FLOAT32: 1.5}, samples=True).sides()  # type: ignore[arg-type]
    samples[FLOAT32]()


@pytest.mark.parametrize("library", BUILDERS)
def test_networks_alone_are_all_networks_and_nothing_else(library: str) -> None:
    model, loss = BUILDERS[library]()
    x = torch.rand(2, *TINY.shape)
    with torch.no_grad():
        loss(model, x)
    report = accelerate(model)
    networks_alone(model, report, lambda: loss(model, x))()
    inside = {id(p) for entry in report.networks for p in model.get_submodule(entry.path).parameters()}
    assert len(report.networks) == TINY.levels * TINY.steps
    assert all((p.grad is not None) == (id(p) in inside) for p in model.parameters())


def test_recomputing_lowers_the_peak() -> None:
    deep = Architecture((3, 8, 8), levels=1, steps=16, hidden=64)
    plain, again = (peaks.peak("normflows", recompute, deep, 2, torch.get_num_threads()) for recompute in (False, True))
    assert 2 * again < plain


def records(name: str, **seconds: float) -> list[Record]:
    conditions = _environment.conditions()
    return [
        command._record(
            name,
            side.replace("_", " "),
            conditions,
            seconds["library"] / s,
            2.0 if side == "fast" else None,
            timing=Timing(s, s, s, 15, 1),
        )
        for side, s in seconds.items()
    ]


def test_table_says_what_was_missed() -> None:
    text = table.render(records("a", library=0.2, library_again=0.204, fast=0.1, slow=0.16))
    assert "| a | fast | 200 ms | 100 ms | 2.00x (target 2.0x) |" in text
    assert "| a | slow | 200 ms | 160 ms | 1.25x |" in text
    assert "0.98 to 0.98" in text and "Targets missed: 0" in text
    assert "(target 2.0x, **missed**)" in table.render(records("a", library=0.2, library_again=0.2, fast=0.15))
    sizes = [
        command._record("m", side, _environment.conditions(), 4.0, None, peak=size)
        for side, size in ((LIBRARY, 8 << 20), (command.RECOMPUTE, 2 << 20))
    ]
    assert "| 8 MiB | 2 MiB | 4.00x |" in table.render(sizes)


def test_picture_has_a_bar_for_every_way() -> None:
    figure = picture.draw(records("a", library=0.2, library_again=0.204, fast=0.1, slow=0.16))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([2.0, 1.25])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a: fast", "a: slow"]


def test_a_work_takes_the_place_of_itself_alone(tmp_path: Path) -> None:
    first, second = command.NAMES[:2]
    for name, seconds in ((second, 1.0), (first, 2.0), (second, 3.0)):
        command._keep([{**record, "threads": "2"} for record in records(name, library=seconds)], tmp_path)
    kept = [(record["work"], record["median_s"]) for record in read_csv(tmp_path / table.FILE)]
    assert kept == [(first, "2.0"), (second, "3.0")]
    command._keep([{**record, "threads": "1"} for record in records(first, library=4.0)], tmp_path)
    assert [record["median_s"] for record in read_csv(tmp_path / table.ONE_THREAD)] == ["4.0"]
    assert [record["median_s"] for record in read_csv(tmp_path / table.FILE)] == ["2.0", "3.0"]
