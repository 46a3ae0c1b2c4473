"""Small models over sizes: every model is accelerated and runs, the interval holds the median, rows are kept."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from benchmarks import _environment
from benchmarks._results import Record, read_csv
from benchmarks.integrations.sizes import __main__ as command
from benchmarks.integrations.sizes import pairs, table
from benchmarks.integrations.sizes.models import MODELS, Model
from hybridkern.integrations import accelerate
from hybridkern.integrations._libraries import LIBRARIES, layers_of

# Of images, with a context or a class, or not replaced on vectors.
NOT_MEASURED = {
    "FrEIA.modules.coupling_layers.ConditionalAffineTransform",
    "FrEIA.modules.coupling_layers.NICECouplingBlock",
    "FrEIA.modules.coupling_layers.RNVPCouplingBlock",
    "FrEIA.modules.fixed_transforms.PermuteRandom",
    "FrEIA.modules.reshapes.IRevNetDownsampling",
    "FrEIA.modules.reshapes.IRevNetUpsampling",
    "nflows.distributions.normal.ConditionalDiagonalNormal",
    "normflows.core.ClassCondFlow",
    "normflows.core.MultiscaleFlow",
    "normflows.distributions.base.ClassCondDiagGaussian",
    "normflows.distributions.base.GlowBase",
    "normflows.flows.affine.glow.GlowBlock",
    "normflows.flows.reshape.Merge",
    "normflows.flows.reshape.Split",
}


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_run_and_agree(model: Model) -> None:
    sides = command.sides_of(model, 8, 5)
    values = [model.loss(each, sides.x) for each in (sides.library, sides.accelerated)]
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-4)
    for kind in (table.STEP, table.EVALUATION, table.CONTROL):
        record = command.measured(command.Row(model.name, kind, 8, 5), sides, _environment.conditions(), 0.0)
        assert int(record["rounds"]) == pairs.LEAST
        assert float(record["low"]) <= float(record["ratio"]) <= float(record["high"])


def test_every_class_on_vectors_is_measured() -> None:
    replaced: set[str] = set()
    for model in MODELS:
        report = accelerate(model.build(8), networks=False)
        replaced |= {entry.kind for entry in report.replaced}
    known = {f"{kind.__module__}.{kind.__qualname__}" for name in LIBRARIES for kind in layers_of(name).LAYERS}
    assert known - replaced == NOT_MEASURED


def test_the_interval_holds_the_median() -> None:
    assert pairs.median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert pairs.median_interval([3.0, 1.0, 2.0, 7.0, 5.0, 4.0, 6.0]) == (1.0, 7.0)
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        low, high = pairs.median_interval([draw.expovariate(math.log(2)) for _ in range(15)])
        held += low <= 1 <= high
    assert 0.955 < held / 2000 < 0.975  # binomial: 0.9648


def test_rounds_stop_where_the_result_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"slow": 3e-3, "fast": 1e-3}
    monkeypatch.setattr(pairs, "seconds_a_call", lambda side, calls: seconds[side()])
    pair = pairs.timed(lambda: "slow", lambda: "fast", budget=60.0)
    assert pair == pairs.Pair(3e-3, 1e-3, 3.0, 3.0, 3.0, pairs.LEAST)
    pair = pairs.timed(lambda: "fast", lambda: "fast", budget=60.0)
    assert pair == pairs.Pair(1e-3, 1e-3, 1.0, 1.0, 1.0, pairs.MOST)
    assert pairs.timed(lambda: "fast", lambda: "fast", budget=0.0).rounds == pairs.LEAST


def _record(model: str, kind: str, dims: int, batch: int, low: float, ratio: float, high: float) -> Record:
    sizes = {"model": model, "kind": kind, "dims": str(dims), "batch": str(batch)}
    times = {"library_s": "1", "accelerated_s": "1", "ratio": str(ratio), "low": str(low), "high": str(high)}
    return sizes | times | {"rounds": "7"} | _environment.conditions()


def test_table_names_what_is_slower() -> None:
    rows = [
        _record("a", "step", 8, 64, 1.5, 1.6, 1.7),
        _record("a", "step", 8, 256, 0.9, 1.1, 1.2),
        _record("a", "step", 16, 64, 0.8, 0.9, 0.95),
        _record("a", "library again", 16, 256, 0.97, 0.99, 1.02),
    ]
    text = table.render(rows)
    assert "| a | step | 1.10 to 1.60 | 0.90 to 0.90 |" in text
    assert "stays under 1: 1 of 3 (a, step, 16 dims, batch 64: 0.90, 0.80 to 0.95)." in text
    assert [table.is_slower(row) for row in rows] == [False, False, True, False]
    assert not table.disturbed(rows[3])
    assert table.disturbed(_record("a", "library again", 16, 256, 0.8, 0.9, 0.94))


def test_rows_are_kept_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BUDGET", 0.0)
    rows = [row for row in command.every_row() if row.model == "zuko, MAF" and row.dims == 8 and row.batch == 64]
    path = tmp_path / table.FILE
    command._measure(rows[:1], path, anew=False)
    kept = read_csv(path)
    found = command._measure(rows, path, anew=False)
    assert set(found) == set(rows) and read_csv(path)[:1] == kept
    monkeypatch.setattr(command, "_environment", _Elsewhere)
    assert command._kept(path, _Elsewhere.conditions()) == {}  # another machine's are none of this one


class _Elsewhere:
    @staticmethod
    def conditions() -> Record:
        return _environment.conditions() | {"cpu": "another"}


def test_a_part_is_not_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = command.every_row()[0]
    record = _record(row.model, row.kind, row.dims, row.batch, 1.1, 1.2, 1.3)
    assert command._conclude({row: record}, tmp_path) == 0
    assert "rows are missing" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    every = {row: _record(*row, 1.1, 1.2, 1.3) for row in command.every_row() if row.kind != table.CONTROL}
    every |= {row: _record(*row, 0.99, 1.0, 1.01) for row in command.every_row() if row.kind == table.CONTROL}
    assert command._conclude(every, tmp_path) == 0
    assert read_csv(tmp_path / table.FILE) == [every[row] for row in command.every_row()]
    slower = every | {row: _record(*row, 0.7, 0.8, 0.9)}
    assert command._conclude(slower, tmp_path) == 1
    unequal = dict.fromkeys(every, "") | every
    control = next(row for row in every if row.kind == table.CONTROL)
    unequal[control] = _record(*control, 0.7, 0.8, 0.9)
    assert command._conclude(unequal, tmp_path / "none") == 1
    assert not (tmp_path / "none").exists()
