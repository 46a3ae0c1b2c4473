"""The count of activation bytes against one made by hand; a run in parts; the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import glow_memory, plot
from benchmarks._measure import LEAST_ROUNDS, Timing, self_check
from benchmarks._results import RESULTS, Record, read_csv
from benchmarks.glow import memory_table, pictures
from benchmarks.glow.allocations import pass_peak, peak_bytes
from benchmarks.glow.side import Architecture


def test_count_by_hand() -> None:
    """Three exponentials keep their results; gradients come and go one after the other.

    Most is alive while the second gradient is made from the first: three results (the caller's name holds the last)
    and two gradients. The third gradient ends as the parameter's, and is not counted.
    """
    n = 1 << 16
    parameter = nn.Parameter(torch.zeros(n))

    def step() -> None:
        y = parameter
        for _ in range(3):
            y = y.exp()
        y.sum().backward()

    peak = peak_bytes(step, [parameter])
    assert 5 * 4 * n <= peak <= 5 * 4 * n + 1024


def test_what_lived_before_is_not_counted() -> None:
    held = [torch.zeros(1 << 16)]
    assert peak_bytes(held.clear, []) == 0


def figures(**seconds: float) -> list[Record]:
    """Records of the default settings: one step a level takes a MiB, in ``invert`` one in all."""
    conditions = glow_memory.settings(glow_memory.parser().parse_args([]))
    records = []
    for kind, side, steps in glow_memory.plan(glow_memory.parser().parse_args([])):
        peak = 2**20 * (1 if side == "invert" else 16 * steps if side == "normflows" else steps)
        time = seconds.get(side.replace(" ", "_"), 1.0)
        timing = Timing(time, time, time, 15, 1)
        values = {"peak": peak} if kind == "peak" else {"timing": timing}
        records.append(glow_memory._record(kind, side, steps, **values) | conditions)
    return records


def test_table_says_what_was_missed() -> None:
    text = memory_table.render(figures(recompute=1.34, invert=1.6))
    assert "| `store` | 4.0 MiB | 32.0 MiB | 64.0 MiB | 1 s |" in text
    assert "| normflows |  | 512.0 MiB |  |  |" in text
    assert "- peak of `invert` at 64 steps against 4: 1x (target at most 1.1x)\n" in text
    assert "`recompute` at 32 steps against store at 32: 1x (target at most 1/8, **missed**)" in text
    assert "`invert` at 32 steps against normflows at 32: 1/512 (target at most 1/20)" in text
    assert "time of `recompute` at 32 steps against store at 32: 1.34x (target at most 1.35x)\n" in text
    assert "1.6x (target at most 1.5x, **missed**)" in text
    part = memory_table.render(figures()[:2])
    assert "target" not in part and "time" not in part.lower()


class Measured:
    """Stands in for what measures: counts the peaks, and says what ``store`` against itself gave."""

    def __init__(self) -> None:
        self.peaks = 0
        self.again = 1.0

    def peak(self, function: object, *arguments: object) -> int:
        self.peaks += 1
        return 2**20

    def times(self, options: object, steps: int) -> dict[str, Timing]:
        seconds = {**dict.fromkeys(glow_memory.MEMORY, 1.0), memory_table.AGAIN: self.again}
        return {side: Timing(value, value, value, 15, 1) for side, value in seconds.items()}


@pytest.mark.usefixtures("threads_restored")
def test_a_run_in_parts_is_published_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, part, published = Measured(), tmp_path / "part.csv", tmp_path / "results" / memory_table.FILE
    monkeypatch.setattr(glow_memory, "RESULTS", published.parent)
    monkeypatch.setattr(glow_memory, "PARTIAL", part)
    monkeypatch.setattr(glow_memory, "in_fresh_process", measured.peak)
    monkeypatch.setattr(glow_memory, "_times", measured.times)
    monkeypatch.setattr(glow_memory._environment, "with_allocator_settings", lambda *arguments: None)

    assert glow_memory.main(["--parts", "time"]) == 0
    assert measured.peaks == 0 and not published.exists()
    assert glow_memory.main(["--parts", "peak", "--steps", "4"]) == 0
    assert glow_memory.main(["--size", "32", "--steps", "2"]) == 0  # other settings: kept beside
    assert measured.peaks == (3 + 1) + (3 + 1) and not published.exists()
    measured.again = 1.2
    assert glow_memory.main(["--parts", "time", "--again"]) == 1  # disturbed
    assert glow_memory.main([]) == 1  # what was missing, and the times anew
    assert measured.peaks == 8 + 6 and not published.exists()
    measured.again = 1.01
    assert glow_memory.main([]) == 0  # the times anew, and only they
    assert measured.peaks == 14
    assert [glow_memory._key(r) for r in read_csv(published)] == glow_memory.plan(glow_memory.parser().parse_args([]))
    assert {record["shape"] for record in read_csv(part)} == {"3x32x32"}
    assert glow_memory.main(["--parts", "peak", "--sides", "store", "--steps", "4"]) == 0
    assert measured.peaks == 15  # what was published is not taken for a part of a new run


def test_figures_of_a_tiny_flow() -> None:
    options = glow_memory.parser().parse_args(["--size", "8", "--levels", "2", "--hidden", "4", "--batch", "2"])
    assert set(glow_memory._times(options, steps=1)) == {*glow_memory.MEMORY, memory_table.AGAIN}
    architecture = Architecture((3, 16, 16), levels=1, steps=12, hidden=16)
    store, invert = (pass_peak(name, architecture, 4, torch.get_num_threads()) for name in ("ours", "ours-invert"))
    assert 0 < invert < store / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sides", "other"], "sides: got other, expected some of store"),
        (["--parts", "colour"], "parts: got colour"),
        (["--steps", "4,x"], "expected positive integers"),
        (["--rounds", "3"], "rounds: got 3, expected at least 15"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        glow_memory.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_picture_is_drawn(tmp_path: Path) -> None:
    plot.save(pictures.draw_memory(figures()), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_published_figures_are_a_whole_run() -> None:
    path = RESULTS / memory_table.FILE
    records = read_csv(path) if path.exists() else figures()
    assert [glow_memory._key(r) for r in records] == glow_memory.plan(glow_memory.parser().parse_args([]))
    assert self_check(memory_table.self_check_of(records, 32))
    assert all(int(record["rounds"]) >= LEAST_ROUNDS for record in records if record["kind"] == "time")
