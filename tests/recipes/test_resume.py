"""Ctrl-C leaves a folder from which --resume ends with the weights of a run that was never interrupted."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

from hybridkern.lab.recipes import digits
from hybridkern.lab.recipes.batches import Batches
from hybridkern.lab.recipes.digits import DigitsConfig
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.interrupts import interruptible
from tests.recipes.conftest import StopAt, run

SETTINGS = {"epochs": 3, "seed": 1}


@pytest.fixture(autouse=True)
def small_digits(monkeypatch):
    """Everything that has a state: EMA, a schedule, dropout, moved images; in a small model."""
    config = DigitsConfig(hidden=16, head_hidden=16, components=2, ema=0.9)
    assert config.schedule == "onecycle" and config.head_dropout and config.dropout and config.shift
    monkeypatch.setattr(digits, "RECIPE", dataclasses.replace(digits.RECIPE, config=config))


@pytest.mark.parametrize("name", ["digits", "digits-tutorial"])
def test_resumed_run_equals_the_whole_run(tmp_path, name):
    whole = run(name, tmp_path / "whole", **SETTINGS)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(name, tmp_path / "cut", extra=(StopAt(2),), **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "cut" / "metrics.json").exists()
    assert torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt")["epoch"] == 1
    torch.rand(5)  # the state of the process must not matter
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    resumed = run(name, tmp_path / "moved", resume=True)
    for key, value in whole.task.state_dict().items():
        assert torch.equal(value, resumed.task.state_dict()[key]), key
    for key in ("validation", "test_nll_nats", "test_error", "epochs", "best_epoch"):
        assert whole.metrics[key] == resumed.metrics[key], key
    last = [torch.load(tmp_path / where / "checkpoints" / "last.ckpt") for where in ("whole", "moved")]
    assert_same(last[0]["optimizer_states"], last[1]["optimizer_states"])
    assert_same(last[0]["lr_schedulers"], last[1]["lr_schedulers"])


@pytest.fixture
def python_handles_ctrl_c():
    """As in a command in the foreground: a shell has those behind ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_that_python_drops_ends_the_training_at_the_next_batch():
    trainer = SimpleNamespace(callbacks=[], interrupted=False)
    with interruptible(trainer):
        (noted,) = trainer.callbacks
        noted.on_train_batch_start()
        with pytest.raises(KeyboardInterrupt):  # as in a finalizer, where it would be dropped
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            noted.on_train_batch_start()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def assert_same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_interrupt_before_the_first_checkpoint_can_be_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("digits-tutorial", tmp_path / "a", extra=(StopAt(0),), epochs=1)
    assert not list((tmp_path / "a" / "checkpoints").iterdir())
    assert run("digits-tutorial", tmp_path / "a", resume=True).metrics["epochs"] == 1


def test_interrupted_evaluation_leaves_no_result_and_is_made_up_for(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hybridkern.lab.recipes.workflow.evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("digits-tutorial", tmp_path / "a", epochs=1)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["checkpoints", "config.json"]
    resumed = run("digits-tutorial", tmp_path / "a", resume=True)
    assert resumed.metrics["epochs"] == 1


def test_run_that_stopped_early_stays_stopped(tmp_path, monkeypatch):
    config = DigitsConfig(hidden=8, head_hidden=0, patience=1, lr=0.0, schedule="constant", epochs=30, ema=None)
    monkeypatch.setattr(digits, "RECIPE", dataclasses.replace(digits.RECIPE, config=config))
    first = run("digits", tmp_path / "a")
    losses = first.metrics["validation"]["val_loss"]
    assert (len(losses), first.metrics["best_epoch"]) == (3, 1)  # stops after more than one epoch without improvement
    (tmp_path / "a" / "metrics.json").unlink()
    assert run("digits", tmp_path / "a", resume=True).metrics["validation"]["val_loss"] == losses


def test_moved_run_remembers_its_best_epoch(tmp_path, monkeypatch):
    config = DigitsConfig(hidden=8, head_hidden=0, lr=0.0, schedule="constant", epochs=3, ema=None)
    monkeypatch.setattr(digits, "RECIPE", dataclasses.replace(digits.RECIPE, config=config))
    with pytest.raises(KeyboardInterrupt):
        run("digits", tmp_path / "a", extra=(StopAt(2),))
    shutil.move(tmp_path / "a", tmp_path / "moved")
    assert run("digits", tmp_path / "moved", resume=True).metrics["best_epoch"] == 1
    assert torch.load(tmp_path / "moved" / "checkpoints" / "best.ckpt")["epoch"] == 0  # no later one was lower


def test_longer_run_can_be_asked_for_where_the_schedule_allows(tmp_path):
    run("digits-tutorial", tmp_path / "a", epochs=1)
    longer = run("digits-tutorial", tmp_path / "a", resume=True, epochs=2)
    whole = run("digits-tutorial", tmp_path / "b", epochs=2)
    assert longer.metrics["validation"] == whole.metrics["validation"]
    run("digits", tmp_path / "c", epochs=1)
    with pytest.raises(RecipeError, match=r"--epochs: got 2, but the run to resume has 1"):
        run("digits", tmp_path / "c", resume=True, epochs=2)


def test_resume_refuses_other_settings_recipes_and_folders(tmp_path):
    run("digits-tutorial", tmp_path / "a", epochs=1)
    with pytest.raises(RecipeError, match=r"--lam: got 0\.5, but the run to resume has none"):
        run("digits-tutorial", tmp_path / "a", resume=True, lam=0.5)
    with pytest.raises(RecipeError, match="holds a run of 'digits-tutorial', not of 'digits'"):
        run("digits", tmp_path / "a", resume=True)
    with pytest.raises(RecipeError, match="holds no run to go on with"):
        run("digits", tmp_path / "none", resume=True)
    (tmp_path / "a" / "config.json").write_text('{"recipe": ')
    with pytest.raises(RecipeError, match=r"config\.json: damaged"):
        run("digits-tutorial", tmp_path / "a", resume=True)


def test_order_is_that_of_a_plain_pytorch_loop():
    from torch.utils.data import DataLoader, TensorDataset

    from hybridkern.lab.data import Split

    split = Split(torch.arange(100.0)[:, None], torch.arange(100))
    torch.manual_seed(5)
    torch.rand(17)
    batches = Batches(split, 16, torch.get_rng_state())
    training = DataLoader(TensorDataset(split.x, split.y), 16, shuffle=True)
    validation = DataLoader(TensorDataset(split.x, split.y), 16)
    assert len(batches) == len(training) == 7
    for epoch in range(3):
        batches.set_epoch(epoch)
        for (x, y), (x_plain, y_plain) in zip(batches, training, strict=True):
            assert torch.equal(x, x_plain) and torch.equal(y, y_plain)
        list(validation)


def test_recorded_curves_are_json_numbers_of_every_epoch(tmp_path):
    done = run("digits-tutorial", tmp_path / "a", epochs=2)
    stored = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert stored["validation"] == done.metrics["validation"]
    assert all(len(values) == 2 for values in stored["validation"].values())
