"""The command for a GPU: to its end on a pretended device; what becomes of workers that fail, die or take too long."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hybridkern
from benchmarks._results import AGAIN, EAGER, OURS
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import kit, supervisor, works
from benchmarks.gpu.correctness import compare
from benchmarks.gpu.device import Device, PretendedDevice
from benchmarks.gpu.item import Context, Item, Phase
from benchmarks.gpu.operators import PHASES
from benchmarks.gpu.plan import PHASES as PLAN
from benchmarks.gpu.rows import Table, read
from benchmarks.gpu.sizes import TINY, Sizes
from benchmarks.gpu.summary import disturbed, text
from benchmarks.gpu.supervisor import Run
from benchmarks.gpu.timing import Piece, interleave, once
from benchmarks.gpu.worker import work


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "torch sees no CUDA or ROCm device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_arguments_are_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--budget", "0"]) == 2
    assert "--budget: got 0.0, expected seconds, more than 0" in capsys.readouterr().err
    (tmp_path / "old").touch()
    assert command.main(["--pretend", "--out", str(tmp_path)]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on a pretended device."""
    out = tmp_path_factory.mktemp("gpu") / "run"
    assert command.main(["--pretend", "--out", str(out)]) == 0
    return out


def test_a_whole_run_measures_everything(pretended: Path) -> None:
    tables = {phase.name: read(pretended / f"{phase.name}.csv") for phase in PLAN}
    wrong = [row for rows in tables.values() for row in rows if row["status"] == "failed"]
    assert wrong == []
    checked = tables["correctness"]
    assert 100 <= len(checked) <= 400
    assert {row["item"].split(".")[0] for row in checked} >= {"affine_coupling", "coupling_network", "paired_conv1x1"}
    for row in checked:
        assert row["status"] == "ok" and (row["worst"] == "" or float(row["worst"]) <= 1)
    measured = tables["operators"]
    for item in {row["item"] for row in measured}:
        sides = {row["side"] for row in measured if row["item"] == item}
        assert {OURS, AGAIN, EAGER} <= sides
        assert {row["phase"] for row in measured if row["item"] == item} == set(PHASES)
    assert all(float(row["device_us"]) > 0 and float(row["share_of_copy"]) > 0 for row in measured)
    wanted = {"ours", "ours recompute", "ours invert", "ours hybrid graphed", "eager"}
    assert wanted <= {row["side"] for row in tables["steps"]}
    assert all(int(row["launches"]) > 0 for row in tables["steps"])


def test_what_a_run_leaves(pretended: Path) -> None:
    facts = json.loads((pretended / "env.json").read_text())
    assert facts["device"].startswith("pretended") and torch.__version__ in facts["packages"]
    summary = (pretended / "summary.md").read_text()
    assert "## Failures\n\nnone" in summary and TINY.steps[0].name in summary
    assert list((pretended / "traces").glob("*.json.gz"))


class Planted:
    """A phase of items that do as they are told."""

    def __init__(self, **runs: Callable[[Context], None]) -> None:
        items = [Item(name, run) for name, run in runs.items()]
        self.phase = Phase("planted", ("value",), lambda device, sizes: items, end=560)

    def run(self, out: Path, device: Device, budget: float = 560, launch: supervisor.Launch | None = None) -> list:
        launch = launch or supervisor.in_this_process(device, TINY, out)
        Run(device, TINY, out, budget, launch).phases([self.phase], say=lambda line: None)
        return [(row["item"], row["side"], row["status"]) for row in read(out / "planted.csv")]


def good(context: Context) -> None:
    context.add("good", value=1)


def bad(context: Context) -> None:
    raise ValueError("it is wrong")


def test_a_failure_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    rows = Planted(bad=bad, good=good).run(tmp_path, PretendedDevice())
    assert rows == [("bad", "", "failed"), ("good", "", "ok")]
    assert read(tmp_path / "planted.csv")[0]["note"] == "ValueError: it is wrong"


@pytest.mark.parametrize(("seconds", "rounds"), [(1e6, 15), (0.55, 5), (0.0, 3)])
def test_rounds_end_before_the_deadline(seconds: float, rounds: int) -> None:
    """One round takes a tenth of a second or a little more; no fewer than three are made."""
    device = PretendedDevice(tick=1e-6)
    deadline = device.now() + seconds
    piece = Piece(lambda _: None)
    found = interleave(device, {"a": piece}, {"a": 0.1}, 15, lambda: deadline - device.now())
    assert found["a"].wall.rounds == rounds


class Faulty(PretendedDevice):
    """A device that a fault ends for the process."""

    broken = False

    def alive(self) -> bool:
        return not self.broken


def test_a_lost_device_costs_one_side(tmp_path: Path) -> None:
    """The next process measures the other sides of the same item."""
    device = Faulty()

    def three(context: Context) -> None:
        for side in ("a", "b", "c"):
            if context.may_run("three", side):
                with context.side("three", side):
                    device.broken = side == "b"
                    if device.broken:
                        raise RuntimeError("an illegal memory access")
                    context.add("three", side=side)

    def again(phase: Phase, share: int, deadline: float) -> int:
        device.broken = False
        return work(phase, share, device, TINY, tmp_path, deadline)

    rows = Planted(three=three, good=good).run(tmp_path, device, launch=again)
    assert rows == [
        ("three", "a", "ok"),
        ("three", "b", "failed"),
        ("three", "a", "ok"),
        ("three", "c", "ok"),
        ("good", "", "ok"),
    ]


def test_the_budget_is_kept(tmp_path: Path) -> None:
    device = PretendedDevice(tick=0.5)

    def slow(context: Context) -> None:
        device.cover(50)
        context.add("slow")

    rows = Planted(first=slow, second=slow, third=slow).run(tmp_path, device, budget=60)
    assert [status for _, _, status in rows] == ["ok", "ok", "skipped"]
    assert device.now() < 120  # what has begun ends in its own time where nobody can end it


DYING = """
import os, signal, sys
from pathlib import Path
from benchmarks.gpu.item import Item, Phase
from benchmarks.gpu.device import Device
from benchmarks.gpu.sizes import TINY
from benchmarks.gpu.worker import work
class Here(Device):
    def alive(self): return True
    def forget(self): pass
def run(context, name):
    if name == "dies":
        context.journal.side(name, "a side")
        os.kill(os.getpid(), signal.SIGSEGV)
    context.add(name)
names = ("first", "dies", "last")
phase = Phase("planted", ("value",), lambda d, s: [Item(n, lambda c, n=n: run(c, n)) for n in names], 560)
out, share, deadline = Path(sys.argv[2]), int(sys.argv[5]), float(sys.argv[6])
sys.exit(work(phase, share, Here(), TINY, out, deadline))
"""


def test_a_process_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The side that it died in is tried once: then it is left out, and here the item runs without it."""
    script = tmp_path / "worker.py"
    script.write_text(DYING.replace("    if name", "    if name in context.lost: return\n    if name"))
    monkeypatch.setenv("PYTHONPATH", str(Path(hybridkern.__file__).parents[1]))
    device, out = Device(), tmp_path / "out"
    launch = supervisor.in_processes(device, out, [sys.executable, str(script)])
    rows = Planted(**dict.fromkeys(("first", "dies", "last"), good)).run(out, device, launch=launch)
    assert rows == [("first", "", "ok"), ("dies", "a side", "failed"), ("last", "", "ok")]
    assert "SIGSEGV" in read(out / "planted.csv")[1]["note"]


HANGING = """
import sys, time
with open(sys.argv[2] + "/journals/planted.0.txt", "a") as file:
    file.write("begin\\thangs\\t\\n")
time.sleep(600)
"""


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "worker.py"
    script.write_text(HANGING)
    monkeypatch.setattr(supervisor, "_GRACE", 0.0)
    device, out = Device(), tmp_path / "out"
    launch = supervisor.in_processes(device, out, [sys.executable, "-S", "-E", str(script)])
    began = time.monotonic()
    rows = Planted(hangs=good, never=good).run(out, device, budget=4, launch=launch)
    assert rows == [("hangs", "", "failed"), ("never", "", "skipped")]
    assert time.monotonic() - began < 60
    assert read(out / "planted.csv")[0]["note"] == "not over at the end of its phase"


def test_the_device_is_timed_apart_from_the_host() -> None:
    device = PretendedDevice(tick=1.0)
    calls: list[str] = []
    piece = Piece(lambda state: calls.append(state), lambda: calls.append("prepared") or "ran")
    on_device, host, wall = once(device, piece, cover=100.0)
    assert calls == ["prepared", "ran", "prepared", "ran"]
    assert (on_device, host, wall) == (3.0, 1.0, 1.0)  # of the clock: one tick a look; the cover is in none of them


def test_a_choice_of_backend_is_made_outside_of_the_clock() -> None:
    device, seen = PretendedDevice(), []

    def note(_: object) -> None:
        seen.append(hybridkern.ops._backends.state.names())

    piece = Piece(note, lambda: note(None), lambda: hybridkern.use_backend("reference"))
    times = interleave(device, {"a": piece}, {"a": 0.0}, 15)
    assert set(seen) == {("reference",)} and len(seen) == 15 * 4
    assert times["a"].wall.rounds == 15 and times["a"].wall.median == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="rounds: got 3"):
        interleave(device, {"a": piece}, {"a": 0.0}, 3)


def test_wrong_numbers_are_found() -> None:
    exact = {"out0": torch.ones(4, dtype=torch.float64)}
    assert compare({"out0": torch.ones(4)}, exact) == 0
    with pytest.raises(AssertionError, match="out0: 1 of 4 elements out of tolerance"):
        compare({"out0": torch.tensor([1.0, 1.0, 1.001, 1.0])}, exact)
    with pytest.raises(AssertionError, match="grad x"):
        compare({"out0": torch.ones(4), "grad x": torch.ones(2)}, exact)


def test_rows_are_checked_and_kept_at_once(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ("value",))
    table.add("one", note="a\nb, " + 500 * "c", value=1 / 3)
    Table(tmp_path / "t.csv", ("value",)).add("two")
    rows = read(tmp_path / "t.csv")
    assert [row["item"] for row in rows] == ["one", "two"] and rows[0]["value"] == "0.333333"
    assert rows[0]["note"].startswith("a b, c") and rows[0]["note"].endswith("...")
    with pytest.raises(ValueError, match=r"columns: got \['other'\]"):
        table.add("three", other=1)


def test_the_summary_says_what_is_wrong() -> None:
    row = dict.fromkeys(("phase", "device_us", "wall_us", "share_of_copy"), "1") | {"status": "ok", "note": ""}
    rows = [row | {"item": "w", "side": AGAIN, "ratio_to_ours": "1.200"}]
    rows += [row | {"item": "w", "side": EAGER, "status": "failed", "note": "wrong"}]
    assert disturbed(rows) == ["w 1: 1.200"]
    found = text({"operators": rows})
    assert "- operators: w, eager: wrong" in found and "1 ok, 1 failed" in found


def test_the_real_sizes_are_those_of_glow() -> None:
    names = [work.name for work in works.works(Sizes())]
    assert len(set(names)) == len(names)
    for shape in ((256, 6, 16, 16), (256, 12, 8, 8), (256, 24, 4, 4)):
        assert any(name.startswith(f"affine_coupling glow {shape} channels_last") for name in names)
    assert {step.batch for step in Sizes().steps} == {64, 256, 512}
    assert PLAN[-1].end < supervisor.FULL


# What a machine with torch and triton alone does not have.
NOT_THERE = (
    "pytest",
    "matplotlib",
    "scipy",
    "lightning",
    "normflows",
    "FrEIA",
    "nflows",
    "mpmath",
    "hypothesis",
    "sklearn",
)


def test_it_needs_torch_alone() -> None:
    lines = [
        "import sys",
        f"sys.modules.update(dict.fromkeys({NOT_THERE}))",
        "from benchmarks.gpu import __main__, plan, steps",
        "from benchmarks.gpu.device import Device",
        "from benchmarks.gpu.sizes import Sizes",
        "[phase.items(Device(), Sizes()) for phase in plan.PHASES]",
        "del sys.modules['scipy']",
        "import importlib.util",
        "importlib.util.find_spec = lambda name: None",
        "steps.lend_scipy()",
        "from scipy.stats import special_ortho_group",
        "import numpy as np",
        "q = special_ortho_group.rvs(6)",
        "assert np.allclose(q @ q.T, np.eye(6)) and np.isclose(np.linalg.det(q), 1)",
    ]
    root = Path(hybridkern.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_kit_takes_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("git") is None or not (kit.ROOT / ".git").exists():
        pytest.skip("the sources are no git repository")
    kit.copy_sources(tmp_path)
    for name in ("benchmarks/gpu/__main__.py", "hybridkern/ops/__init__.py", "setup.py", "tests/_tolerances.py"):
        assert (tmp_path / name).read_bytes() == (kit.ROOT / name).read_bytes()
    assert not (tmp_path / "docs").exists()
    kit.copy_headers(tmp_path, sys.executable)
    assert kit.size_of(tmp_path) < kit.MOST_BYTES
    (tmp_path / ".kit" / "site").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("C_INCLUDE_PATH", "/before")
    kit.enter(tmp_path)
    assert sys.path[-1] == str(tmp_path / ".kit" / "site")
    folder = Path(os.environ["C_INCLUDE_PATH"].split(":")[1])
    assert (folder / "Python.h").exists()
    monkeypatch.setattr(kit, "MOST_BYTES", 1000)
    with pytest.raises(SystemExit, match="expected at most 1000; the largest are"):
        kit.size_of(tmp_path)


def test_the_kit_needs_an_interpreter_that_runs(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--python: got python3.1, expected an interpreter that runs"):
        kit.main(["--python", "python3.1", "--out", str(tmp_path / "kit")])
    assert not (tmp_path / "kit").exists()
