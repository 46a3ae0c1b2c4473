"""An experiment that takes no time, in the list of experiments."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from hybridkern.lab.archive import read_arrays
from hybridkern.lab.reproduce import experiment
from hybridkern.lab.reproduce.experiment import Experiment, Request
from hybridkern.lab.reproduce.result import Column, Result, Row, Table
from hybridkern.lab.reproduce.workflow import Reproduction, reproduce


def load(request: Request):
    return None if request.data is None else read_arrays(request.data, ["stop"])


def run(request: Request, arrays) -> Result:
    request.run_folder("a").mkdir(parents=True, exist_ok=True)
    request.say("at work")
    if arrays is not None and "stop" in arrays and not (request.folder / "stopped").exists():
        (request.folder / "stopped").touch()
        raise KeyboardInterrupt
    figure = Figure()
    figure.subplots().plot([0, 1])
    table = Table(
        "Errors",
        [Column("error", "error, %", ".1f"), Column("nll", "NLL, nats")],
        [
            Row("lambda = 1", {"error": 12.34, "nll": math.inf}),
            Row("lambda = 1", {"error": "2-3 | 4"}, source="A. Author 2000"),
        ],
        heading="model",
    )
    return Result([table], {"fake": figure}, ["Data: none."], ["Nothing was reached."], {"steps": 3})


EXPERIMENT = Experiment("fake", "An experiment for tests.", 2.0, run, load, sources=("data",))


@pytest.fixture
def fake(monkeypatch) -> str:
    monkeypatch.setitem(sys.modules, "fake_experiment", sys.modules[__name__])
    monkeypatch.setitem(experiment._MODULES, "fake", "fake_experiment")
    return "fake"


def done(name: str, out: Path, **options: Any) -> Reproduction:
    """Reproduces without a word."""
    return reproduce(name, out, console=Console(file=io.StringIO()), **options)
