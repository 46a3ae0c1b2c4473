"""``hybridkern sample`` of one class, and at a temperature: what is drawn, in the units of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hybridkern.lab.recipes.evaluation import draw
from hybridkern.lab.recipes.sampling import sample_run
from hybridkern.lab.recipes.workflow import load_run
from tests.recipes.conftest import run
from tests.recipes.images import SMALL, npz
from tests.test_cli import call

VAE = {"hidden": 8, "latent": 4, "batch_size": 8, "validation": 8, "draws": 1, "epochs": 2, "labels": 12}
OPTIONS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 2, "hidden": 16, "head_hidden": 16},
    "svhn": SMALL | {"epochs": 8, "precision": "fp32"},
    "mnist-vae": VAE,
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_samples_of_a_class_and_a_temperature(name: str, tmp_path: Path) -> None:
    shape = {"svhn": (8, 8, 3), "mnist-vae": (12, 12)}.get(name)
    data = {} if shape is None else {"data": npz(tmp_path / "a.npz", shape=shape)}
    folder = tmp_path / "run"
    run(name, folder, **OPTIONS[name] | data)
    task = load_run(folder)[1]
    x = draw(task, 20, 3, temperature=0.5, label=1)
    out = sample_run(folder, 20, tmp_path / "s.npz", 3, temperature=0.5, label=1)
    (found,) = dict(np.load(out)).values()
    np.testing.assert_array_equal(found.reshape(20, -1), x.round() if x.shape[1] > 2 else x)
    assert not torch.equal(x, draw(task, 20, 3, temperature=0.5, label=0))
    assert imread(sample_run(folder, 20, tmp_path / "s.png", 3, temperature=0.5, label=1)).std() > 0.01
    if name == "mnist-vae":
        return  # its pixels are drawn: the noise of p(x|z) has no temperature
    widths = [draw(task, 200, 0, temperature=t).double().std(0).mean() for t in (0.3, 1.0)]
    assert widths[0] < widths[1]


def test_the_command_draws_what_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("moons", folder, epochs=2)
    out = tmp_path / "s.npz"
    result = call("sample", folder, "-n", 7, "--class", 1, "--temperature", 0.5, "--seed", 3, "--out", out)
    assert result.stdout.strip() == str(out)
    np.testing.assert_array_equal(np.load(out)["x"], draw(load_run(folder)[1], 7, 3, temperature=0.5, label=1))
    assert "--class: got 2, expected 0 to 1 (2 classes)" in call("sample", folder, "--class", 2, code=1).stderr
