"""``hybridkern.lab.fit`` goes on with a training that was cut or is to be longer, and with no other."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import hybridkern
from hybridkern import flows, lab
from hybridkern._saved.files import read_json, write_json
from hybridkern.lab.fitting.callbacks import WholeEpochs
from tests.lab.small import QUIET, clouds, hybrid, weights

pytestmark = pytest.mark.usefixtures("one_thread")


class Break(Callback):
    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.epoch, self.error = epoch, error

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


def test_a_resumed_training_is_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds()
    settings: dict[str, Any] = {"epochs": 4, "lr": 5e-3, **QUIET}
    whole, cut = hybrid(), hybrid()
    expected = lab.fit(whole, x, y, **settings)
    monkeypatch.setattr(WholeEpochs, "seconds", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("hybridkern.lab.fitting.run.Line", lambda *_: Break(2, ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            lab.fit(cut, x, y, out=tmp_path, **settings)
    torch.rand(7)
    again = hybrid()
    history = lab.fit(again, x, y, out=tmp_path, resume=True, **settings)
    assert history["val_loss"] == expected["val_loss"] and history.best == expected.best
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)
    torch.testing.assert_close(weights(hybridkern.load(tmp_path)), weights(whole), rtol=0, atol=0)
    assert json.loads((tmp_path / "history.json").read_text())["stopped"] == "4 epochs were done"


def test_a_finished_training_goes_on(tmp_path: Path) -> None:
    x, y = clouds(100)
    model = hybrid()
    settings: dict[str, Any] = {"schedule": "constant", "out": tmp_path, **QUIET}
    lab.fit(model, x, y, epochs=2, **settings)
    assert lab.fit(model, x, y, epochs=2, resume=True, **settings)["epoch"] == [1, 2]  # nothing was left to do
    longer = lab.fit(model, x, y, epochs=5, resume=True, **settings)
    assert longer["epoch"] == [1, 2, 3, 4, 5]
    whole = lab.fit(hybrid(), x, y, epochs=5, schedule="constant", **QUIET)
    assert longer["val_loss"] == whole["val_loss"]
    for change, message in ((settings | {"lr": 0.1}, "lr: got 0.1, but"), (settings | {"seed": 3}, "seed: got 3, but")):
        with pytest.raises(ValueError, match=message):
            lab.fit(model, x, y, epochs=6, resume=True, **change)
    with pytest.raises(ValueError, match="x, y, context: got other rows than those of the training in"):
        lab.fit(model, x + 1, y, epochs=6, resume=True, **settings)
    fewer = lab.fit(model, x, y, epochs=3, resume=True, **settings)
    assert fewer["epoch"] == [1, 2, 3, 4, 5] and fewer.stopped == "5 epochs were done"
    with pytest.raises(ValueError, match=r"out: got .* which is not empty"):
        lab.fit(model, x, y, epochs=6, **settings)


def test_nothing_is_resumed_over_what_is_no_training(tmp_path: Path) -> None:
    x, y = clouds(60)
    options: dict[str, Any] = {"epochs": 1, "resume": True} | QUIET
    hybrid().save(tmp_path / "saved")
    before = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with pytest.raises(ValueError, match=r"out: got .*saved, which holds no training but 'config\.json'"):
        lab.fit(hybrid(), x, y, out=tmp_path / "saved", **options)
    assert {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    lab.fit(hybrid(), x, y, out=tmp_path / "run", **options)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="run holds a finished training, and no checkpoint to go on from"):
        lab.fit(hybrid(), x, y, out=tmp_path / "run", **options)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "history.json").write_text('{"loss": [0.3, 0.2]}')
    with pytest.raises(ValueError, match=r"history\.json: holds no training of hybridkern; expected another folder"):
        lab.fit(hybrid(), x, y, out=tmp_path / "keras", **options)
    assert (tmp_path / "keras" / "history.json").read_text() == '{"loss": [0.3, 0.2]}'


def test_a_training_begins_beside_what_it_does_not_replace(tmp_path: Path) -> None:
    x, y = clouds(60)
    for name in ("train.log", ".gitkeep"):
        (tmp_path / name).write_text("mine")
    assert len(lab.fit(hybrid(), x, y, epochs=1, resume=True, out=tmp_path, **QUIET).epochs) == 1
    assert (tmp_path / "train.log").read_text() == "mine"
    assert hybridkern.load(tmp_path)


def test_a_training_goes_on_with_a_model_that_is_built_as_it_was(tmp_path: Path) -> None:
    x, _ = clouds(60)
    options: dict[str, Any] = {"out": tmp_path, "schedule": "constant"} | QUIET
    lab.fit(flows.NSF(2, layers=1, hidden=(8,), bound=3.0), x, epochs=1, **options)
    other = flows.NSF(2, layers=1, hidden=(8,), bound=5.0)  # whose parameters have the same shapes
    before = weights(other)
    with pytest.raises(ValueError, match="model: got one that is built otherwise than that of the training in"):
        lab.fit(other, x, epochs=2, resume=True, **options)
    assert all(torch.equal(value, before[name]) for name, value in weights(other).items())
    same = flows.NSF(2, layers=1, hidden=(8,), bound=3)
    assert len(lab.fit(same, x, epochs=2, resume=True, **options).epochs) == 2
    history = read_json(tmp_path / "history.json")
    del history["model"]["built"]["arguments"]["bins"]  # as of a version that did not have it, but its default
    write_json(tmp_path / "history.json", history)
    assert len(lab.fit(same, x, epochs=3, resume=True, **options).epochs) == 3
    history = read_json(tmp_path / "history.json")
    del history["model"]  # as older versions wrote it
    write_json(tmp_path / "history.json", history)
    assert len(lab.fit(same, x, epochs=4, resume=True, **options).epochs) == 4


def test_a_number_is_the_same_with_and_without_a_point_in_modules_of_torch_too(tmp_path: Path) -> None:
    x, _ = clouds(60)
    models = [flows.RealNVP(2, layers=1, hidden=4, activation=partial(nn.LeakyReLU, slope)) for slope in (1, 1.0, 0.5)]
    lab.fit(models[0], x, epochs=1, out=tmp_path, schedule="constant", **QUIET)
    options: dict[str, Any] = {"out": tmp_path, "resume": True, "schedule": "constant"} | QUIET
    assert len(lab.fit(models[1], x, epochs=2, **options).epochs) == 2
    with pytest.raises(ValueError, match=r"built otherwise than that of the training in .*negative_slope=0\.5"):
        lab.fit(models[2], x, epochs=3, **options)


def test_a_training_goes_on_with_its_own_validation_rows(tmp_path: Path) -> None:
    x, y = clouds()
    lab.fit(hybrid(), x, y, validation=(x[:50], y[:50]), epochs=1, out=tmp_path / "run", **QUIET)
    options: dict[str, Any] = {"epochs": 2, "out": tmp_path / "run", "resume": True} | QUIET
    with pytest.raises(ValueError, match="validation: got other rows than those of the training in"):
        lab.fit(hybrid(), x, y, validation=(x[50:100], y[50:100]), **options)
    history = read_json(tmp_path / "run" / "history.json")
    del history["settings"]["validation_sha256"]  # as older versions wrote it
    write_json(tmp_path / "run" / "history.json", history)
    assert len(lab.fit(hybrid(), x, y, validation=(x[:50], y[:50]), **options).epochs) == 2
