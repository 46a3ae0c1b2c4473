"""The GPU benchmark, on a tiny CPU configuration: its code runs, and what it says of its rows is so."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

import hybridkern
from benchmarks._measure import Timing
from benchmarks._results import AGAIN, COMPILED, EAGER, OURS, write_csv
from benchmarks.glow.side import Architecture
from benchmarks.gpu import __main__ as command
from benchmarks.gpu.cases import PHASES, Case, Sizes, all_cases, on_backend
from benchmarks.gpu.device import Device, Piece
from benchmarks.gpu.results import disturbed, draw_bandwidth, draw_ratios, make_rows
from benchmarks.plot import save

TINY = Sizes((2, 2, 4, 4), (4, 6), (2, 4), 1 << 10, Architecture((3, 8, 8), levels=2, steps=1, hidden=4), batch=2)
CPU = Device("cpu")


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "torch sees no CUDA or ROCm device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_everything_is_measured() -> None:
    rows = command.measure(CPU, TINY, rounds=15, compiled=False)
    operators = {row["work"].split()[0] for row in rows}
    assert {
        "affine_coupling",
        "rounding_coupling",
        "discretized_logistic",
        "discretized_logistic_mixture",
        "gaussian_log_prob",
        "paired_conv1x1",
        "Glow",
    } == operators
    for work in {row["work"] for row in rows}:
        assert {row["phase"] for row in rows if row["work"] == work} == set(PHASES)
    assert {EAGER, OURS, AGAIN} <= {row["side"] for row in rows}
    columns = {"median_us", "ratio_to_ours", "share_of_copy", "peak_bytes", "device", "driver", "runtime", "torch"}
    assert all(columns <= set(row) and float(row["median_us"]) > 0 for row in rows)


@pytest.mark.slow
def test_torch_compile_is_a_side() -> None:
    cases = [case for case in all_cases(CPU, TINY, compiled=True) if case.phase == "full"]
    assert all(COMPILED in case.sides for case in cases)
    for case in (cases[0], cases[-1]):
        case.sides[COMPILED].run(None)


def test_traffic_is_what_must_be_moved() -> None:
    case, backward, full = list(all_cases(CPU, TINY, compiled=False))[:3]
    x, log_det = 4 * 2 * 2 * 16, 4 * 2
    forward = x + 2 * x + x + log_det  # x, parameters, y, log-determinant
    assert (case.phase, case.traffic) == ("forward", forward)
    assert backward.traffic == (x + 2 * x) + (x + log_det) + (x + 2 * x)
    assert full.traffic == case.traffic + backward.traffic


def test_backends_are_chosen_explicitly() -> None:
    seen = []
    function = on_backend(lambda: (seen.append(hybridkern.ops._backends.state.names()),), "reference")
    function()
    assert seen == [("reference",)]


def test_only_the_run_is_timed() -> None:
    calls: list[str] = []
    piece = Piece(lambda state: calls.append(state), lambda: calls.append("prepared") or "ran")
    timings = CPU.interleave({"a": piece, "b": piece}, 15)
    assert calls[:2] == ["prepared", "ran"] and len(calls) == 2 * 2 * (15 + 3)
    assert timings["a"].rounds == 15
    with pytest.raises(ValueError, match="rounds: got 3"):
        CPU.interleave({"a": piece}, 3)


def timing(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds, 31, 1)


def test_rows_file_and_pictures(tmp_path: Path) -> None:
    case = Case("some work", "full", {}, traffic=1000)
    timings = {OURS: timing(1e-6), AGAIN: timing(1.2e-6), EAGER: timing(4e-6), COMPILED: timing(2e-6)}
    conditions = {"device": "a GPU", "runtime": "CUDA 13", "torch": "2", "date": "today"}
    rows = make_rows(case, timings, dict.fromkeys(timings, 7), 2e9, conditions)
    eager = rows[2]
    assert (eager["ratio_to_ours"], eager["bytes_per_s"], eager["share_of_copy"]) == ("4.000", "2.5e+08", "0.125")
    assert disturbed(rows, 0.05) == ["some work, full: 1.200"] and disturbed(rows, 0.3) == []
    write_csv(tmp_path / "new" / "gpu.csv", rows)
    with (tmp_path / "new" / "gpu.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    for draw in (draw_ratios, draw_bandwidth):
        save(draw(rows), tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_operator_tests_run_on_the_device_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the interpreter shows what it was started with."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "$HYBRIDKERN_TEST_DEVICE $*" >{tmp_path}/started\nexit 3\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert command.run_tests("cuda", "-x") == 3
    assert (tmp_path / "started").read_text().split() == ["cuda", "-m", "pytest", "tests/ops", "-q", "-x"]
