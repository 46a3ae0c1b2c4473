"""A run folder with a damaged file: one line that names file and fault, or the same run from an earlier checkpoint."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hybridkern._saved.seals import seal_archive, seal_tensors
from hybridkern.lab.recipes import cubic
from hybridkern.lab.recipes.callbacks import Last
from hybridkern.lab.recipes.files import write_sealed_json
from tests.recipes.conftest import call, run, without_pictures
from tests.recipes.version_0_1 import without_checksums

NAME = "cubic"
SETTINGS = {"epochs": 3, "starts": 1, "keep": "best"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A finished run of three epochs, each of which was kept."""
    folder = tmp_path_factory.mktemp("damaged") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Last, "seconds", 0.0)
        run(NAME, folder, **SETTINGS)
    return folder


undrawn = without_pictures(cubic, autouse=True)


@pytest.fixture
def copy(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "run"))


def one_line_about(path: Path, error: str) -> str:
    """The fault in a line ``hybridkern: FILE: fault``."""
    (line,) = [line for line in error.splitlines() if line.startswith("hybridkern: ")]
    assert error.rstrip().endswith(line), error
    start = f"hybridkern: {path}: "
    assert line.startswith(start), line
    return line.removeprefix(start)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def enlarge(path: Path) -> None:
    os.truncate(path, 2**40)  # a hole: it takes no room on the disk


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def member(*keys: str, value: Any) -> Callable[[Path], object]:
    """Another value in a JSON file, which then gets a checksum."""

    def change(path: Path) -> None:
        values = json.loads(path.read_text())
        inner = values
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        write_sealed_json(path, values)

    return change


DEEP = '{"a":' + "[" * 100_000
CONFIG = [
    (truncate, "damaged"),
    (empty, "damaged"),
    (flip, "damaged"),
    (enlarge, "got 1099511627776 bytes, expected at most"),
    (pipe, "is no file"),
    (folder, "is no file"),
    (text("[" * 100_000), "nested too deeply"),
    (text(DEEP), "nested too deeply"),
    (text("[]"), "expected a JSON object"),
    (text("{}"), "damaged .*recipe"),
    (text(b"\xff\xfe"), "damaged"),
    (text('{"recipe": NaN}'), "NaN is no JSON"),
    (text("\x89PNG"), "damaged"),
    (text('{"a": ' + "9" * 5000 + "}"), "damaged"),
    (member("recipe", value="cube"), "got 'cube', expected one of"),
    (member("recipe", value=[1]), "damaged"),
    (member("more", value=1), "knows no 'more'"),
    (member("config", "more", value=1), "knows no setting 'more'"),
    (member("config", "layers", value="3"), "layers: got '3', expected int"),
    (member("config", "layers", value=True), "layers: got True, expected int"),
    (member("config", "layers", value=0), "got 0, expected a whole number from 1 on"),
    (member("config", value=[]), "damaged"),
    (member("data", "dim", value=2), "expected the shape of examples"),
    (member("data", "shape", value=[-1, -1]), "expected the shape of examples"),
    (member("data", value={}), "damaged"),
    (member("data_sha256", value=3), "data_sha256: got 3, expected text"),
]
METRICS = [
    (truncate, "damaged"),
    (empty, "damaged"),
    (flip, "damaged"),
    (enlarge, "expected at most"),
    (pipe, "is no file"),
    (text(DEEP), "nested too deeply"),
    (text("{}"), "its checksum is missing"),
    (member("test_rmse", value="much"), "damaged"),
]
WEIGHTS = [
    (truncate, "missing or damaged"),
    (empty, "missing or damaged"),
    (flip, "missing or damaged"),
    (Path.unlink, "missing"),
    (enlarge, "missing or damaged"),
    (pipe, "is no file"),
    (text("\x89PNG" * 100), "missing or damaged"),
    (text((2**40).to_bytes(8, "little") + b"{}"), "missing or damaged"),
    (lambda path: path.write_bytes(seal_tensors({"a": torch.zeros(3)})), "missing or damaged"),
    (lambda path: path.write_bytes(seal_tensors({k: v[..., None] for k, v in load_file(path).items()})), "damaged"),
    (lambda path: path.write_bytes(seal_tensors(load_file(path)).replace(b'"checksum"', b'"chekcsum"')), "no checksum"),
]


@pytest.mark.parametrize(
    ("name", "damage", "fault"),
    [
        pytest.param(name, damage, fault, id=f"{name}-{number}")
        for name, cases in (("config.json", CONFIG), ("metrics.json", METRICS), ("model.safetensors", WEIGHTS))
        for number, (damage, fault) in enumerate(cases)
    ],
)
def test_evaluate_names_the_damaged_file(copy, name, damage, fault):
    damage(copy / name)
    assert re.search(fault, one_line_about(copy / name, call("evaluate", copy, code=1)))
    if name == "config.json":
        before = sorted(copy.rglob("*"))
        assert one_line_about(copy / name, call("train", NAME, "--out", copy, "--resume", code=1))
        assert sorted(copy.rglob("*")) == before


def unfinished(folder: Path) -> None:
    for name in ("metrics.json", "model.safetensors"):
        (folder / name).unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip, Path.unlink])
def test_damaged_checkpoint_falls_back_to_the_one_before_with_the_same_result(base, copy, damage):
    unfinished(copy)
    damage(copy / "checkpoints/last.ckpt")
    error = call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=0)
    (note,) = [line for line in error.splitlines() if line.startswith("hybridkern: ")]
    assert note.startswith(f"hybridkern: note: {copy}/checkpoints/last.ckpt: ")
    assert note.endswith("; going on from last.previous.ckpt, the checkpoint before it")
    assert_same_run(base, copy)


def assert_same_run(one: Path, other: Path) -> None:
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert metrics[0]["validation"] == metrics[1]["validation"]
    assert metrics[0]["test_nll_nats"] == metrics[1]["test_nll_nats"]


def changed(change: Callable[[dict], object], seal: bool = True) -> Callable[[Path], None]:
    """Another content of a checkpoint, with its checksum or without."""

    def damage(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
        if seal:
            path.write_bytes(seal_archive(path.read_bytes()))

    return damage


def states(checkpoint: dict) -> dict:
    return checkpoint["optimizer_states"][0]["state"]


def smaller(name: str) -> Callable[[dict], object]:
    return lambda checkpoint: states(checkpoint)[0].update({name: torch.zeros(1, 1, 1)})


def harmful(path: Path) -> None:
    """What would run code, were it not read as plain data."""

    class Harmful:
        def __reduce__(self):
            return os._exit, (3,)

    torch.save({"state_dict": Harmful()}, path, pickle_module=pickle)
    path.write_bytes(seal_archive(path.read_bytes()))


LAST = [
    (changed(smaller("exp_avg")), r"does not fit the model \(optimizer state of parameter 0: exp_avg: got shape"),
    (changed(smaller("exp_avg_sq")), "does not fit the model .*exp_avg_sq: got shape"),
    (changed(lambda c: states(c)[0].pop("exp_avg")), "does not fit the model"),
    (changed(lambda c: states(c).update({99: {}})), "does not fit the model"),
    (changed(lambda c: c["optimizer_states"].clear()), "does not fit the model"),
    (changed(lambda c: c["optimizer_states"][0]["param_groups"].clear()), "does not fit the model"),
    (changed(lambda c: c["optimizer_states"][0]["param_groups"][0].update(betas="x")), "betas: got 'x'"),
    (changed(lambda c: c["state_dict"].popitem()), "does not fit the model .it has no"),
    (changed(lambda c: c["state_dict"].update(more=torch.zeros(1))), "does not fit the model .it has more"),
    (changed(lambda c: c["state_dict"].update({k: v[None] for k, v in c["state_dict"].items()})), "got shape"),
    (changed(lambda c: c["state_dict"].update({k: v.double() for k, v in c["state_dict"].items()})), "float64"),
    (changed(lambda c: c["callbacks"].pop("History")), "it knows no History"),
    (changed(lambda c: c["callbacks"]["History"].clear()), "does not fit this run"),
    (changed(lambda c: c["loops"].clear()), "does not fit this run"),
    (changed(lambda c: c["lr_schedulers"].__setitem__(0, 3)), "does not fit this run"),
    (changed(lambda c: None, seal=False), "holds no checksum"),
    (changed(smaller("exp_avg"), seal=False), "holds no checksum"),
]


@pytest.mark.parametrize(("damage", "fault"), LAST)
def test_whole_checkpoint_of_something_else_is_refused(copy, damage, fault):
    """Even with one before it to fall back on: it was put there, it was not damaged."""
    unfinished(copy)
    path = copy / "checkpoints/last.ckpt"
    damage(path)
    assert re.search(fault, one_line_about(path, call("train", NAME, "--out", copy, "--resume", code=1)))


@pytest.mark.parametrize("damage", [truncate, empty, flip, pipe, folder, enlarge, harmful, changed(dict.clear)])
def test_without_a_checkpoint_to_fall_back_on_there_is_one_line(copy, damage):
    unfinished(copy)
    (copy / "checkpoints/last.previous.ckpt").unlink()
    path = copy / "checkpoints/last.ckpt"
    damage(path)
    fault = one_line_about(path, call("train", NAME, "--out", copy, "--resume", code=1))
    assert fault.endswith(f"; remove {copy}/checkpoints to train from the start with --resume")


def first_was_best(checkpoint: dict) -> None:
    checkpoint["callbacks"]["History"]["curves"]["val_loss"][0] = -100.0


@pytest.mark.parametrize("damage", [truncate, empty, flip, Path.unlink, pipe, enlarge])
def test_damaged_best_checkpoint_gives_way_to_the_last_epoch(copy, damage):
    unfinished(copy)
    changed(first_was_best)(copy / "checkpoints/last.ckpt")
    damage(copy / "checkpoints/best.ckpt")
    error = call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=0)
    (note,) = [line for line in error.splitlines() if line.startswith("hybridkern: ")]
    assert note.startswith(f"hybridkern: note: {copy}/checkpoints/best.ckpt: ")
    assert "; the weights of the last epoch are kept, unless a later one is better" in note
    last = torch.load(copy / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    kept = load_file(copy / "model.safetensors")
    assert kept and all(torch.equal(value, last[f"task.{name}"]) for name, value in kept.items())
    assert json.loads((copy / "metrics.json").read_text())["best_epoch"] == SETTINGS["epochs"]
    call("evaluate", copy, code=0)


def test_a_better_epoch_takes_the_place_of_a_damaged_one(base, copy):
    unfinished(copy)
    flip(copy / "checkpoints/best.ckpt")
    (copy / "checkpoints/last.ckpt").unlink()  # goes on from the second epoch, and the third is better
    call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=0)
    assert_same_run(base, copy)
    assert (copy / "checkpoints/best.ckpt").read_bytes() == (base / "checkpoints/best.ckpt").read_bytes()


def test_the_advice_given_helps(base, copy):
    unfinished(copy)
    shutil.rmtree(copy / "checkpoints")
    call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=0)
    assert_same_run(base, copy)


def test_a_finished_run_without_checkpoints_is_not_trained_anew(copy):
    shutil.rmtree(copy / "checkpoints")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    error = call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=1)
    assert f"--resume: {copy} is finished, and holds no checkpoint to go on from any more" in error
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == before
    (copy / "metrics.json").unlink()  # as it advises
    call("train", NAME, "--out", copy, "--resume", "--threads", 1, code=0)


@pytest.mark.parametrize("place", [0, 7, 0.1, 0.3, 0.5, 0.7, 0.9, -1, -40, -70, -71, -72, -73, -93])
@pytest.mark.parametrize("name", ["config.json", "metrics.json", "model.safetensors", "checkpoints/last.ckpt"])
def test_no_flipped_byte_goes_unseen(copy, name, place):
    path = copy / name
    content = bytearray(path.read_bytes())
    at = int(place * len(content)) if isinstance(place, float) else place
    content[at] ^= 0x55
    path.write_bytes(content)
    if name.endswith("ckpt"):
        (copy / "checkpoints/last.previous.ckpt").unlink()
        unfinished(copy)
        one_line_about(path, call("train", NAME, "--out", copy, "--resume", code=1))
    else:
        one_line_about(path, call("evaluate", copy, code=1))


class TestVersion01:
    """Folders without checksums are read; what is wrong in them is found where it can be."""

    @pytest.fixture
    def old(self, copy) -> Path:
        without_checksums(copy)
        return copy

    def test_it_is_evaluated_and_sampled(self, old):
        before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
        assert call("evaluate", old, code=0) == ""
        call("sample", old, "--out", old.parent / "s.npz", code=0)
        assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before

    def test_it_is_gone_on_with_and_then_holds_checksums(self, base, old):
        unfinished(old)
        call("train", NAME, "--out", old, "--resume", "--threads", 1, code=0)
        assert_same_run(base, old)
        flip(old / "checkpoints/best.ckpt")
        unfinished(old)
        error = call("train", NAME, "--out", old, "--resume", "--threads", 1, code=0)
        assert f"hybridkern: note: {old}/checkpoints/best.ckpt: damaged" in error

    @pytest.mark.parametrize(
        ("name", "content", "fault"),
        [
            ("metrics.json", "{}", "damaged"),
            ("metrics.json", '{"valid_likelihood": true, "test_nll_nats": "x"}', "damaged"),
            ("config.json", "[" * 100_000, "nested too deeply"),
            ("model.safetensors", "", "missing or damaged"),
        ],
    )
    def test_damage_is_named(self, old, name, content, fault):
        (old / name).write_text(content)
        assert fault in one_line_about(old / name, call("evaluate", old, code=1))

    def test_absurd_sizes_are_named(self, old):
        values = json.loads((old / "config.json").read_text())
        values["config"]["layers"] = 10**15
        values["data"] |= {"dim": 10**15, "shape": [10**15]}
        (old / "config.json").write_text(json.dumps(values))
        assert "cannot be built" in one_line_about(old / "config.json", call("evaluate", old, code=1))

    @pytest.mark.parametrize(
        ("damage", "fault"),
        [
            (truncate, "damaged"),
            (empty, "damaged"),
            (changed(smaller("exp_avg"), seal=False), "does not fit the model"),
            (changed(lambda c: c["state_dict"].popitem(), seal=False), "does not fit the model"),
        ],
    )
    def test_damaged_checkpoint_is_named(self, old, damage, fault):
        unfinished(old)
        damage(old / "checkpoints/last.ckpt")
        error = call("train", NAME, "--out", old, "--resume", code=1)
        assert fault in one_line_about(old / "checkpoints/last.ckpt", error)
