"""``hybridkern.load`` builds the model of a run folder without its recipe, and a finished run trains on."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

import hybridkern
from hybridkern.lab.recipes import digits
from hybridkern.lab.recipes.digits import DigitsConfig
from hybridkern.lab.recipes.workflow import load_run
from tests.recipes.conftest import run
from tests.recipes.images import SMALL as SMALL_GLOW
from tests.recipes.images import npz

SMALL: dict[str, dict[str, Any]] = {
    "digits-tutorial": {"parts": 4},
    "cubic": {"starts": 1, "layers": 2},
    "moons": {"size": 100, "hidden": 8, "head_hidden": 8},
}


@pytest.mark.parametrize("name", SMALL)
def test_the_model_of_a_run(tmp_path, name):
    done = run(name, tmp_path / "run", epochs=1, **SMALL[name])
    same(done.task.model, tmp_path / "run")


def test_the_model_of_the_digits(tmp_path, monkeypatch):
    config = DigitsConfig(hidden=16, head_hidden=16, components=2, levels=2, dropout=0.0)
    monkeypatch.setattr(digits, "RECIPE", dataclasses.replace(digits.RECIPE, config=config))
    same(run("digits", tmp_path / "run", epochs=1).task.model, tmp_path / "run")


def same(model, folder):
    loaded = hybridkern.load(folder)
    assert type(loaded) is type(model)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


def test_a_folder_without_a_description_says_so(tmp_path):
    """As version 0.1 wrote them; the recipe itself reads them."""
    run("digits-tutorial", tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    del values["model"], values["checksum"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config\.json: got no entry 'model', .*version 0.1 wrote none"):
        hybridkern.load(tmp_path / "run")


def test_images_go_on_along_their_schedule(tmp_path):
    """After it was finished, a run takes more epochs; its learning rate follows the longer schedule."""
    data = npz(tmp_path / "images.npz", shape=(8, 8))
    short = run("mnist", tmp_path / "run", data=data, epochs=1, head="top", **SMALL_GLOW)
    same(short.task.model, tmp_path / "run")
    longer = run("mnist", tmp_path / "run", resume=True, epochs=2)
    assert longer.metrics["steps"] == 2 * short.metrics["steps"] and longer.record.config.epochs == 2
    assert longer.metrics["lam"] == 1.0
    assert run("mnist", tmp_path / "run", resume=True).metrics["steps"] == longer.metrics["steps"]
    again, task = load_run(tmp_path / "run")
    assert again.config.epochs == 2 and task.model.flow.shape == (1, 8, 8)
