"""Experiment ``codec`` on a small set: its bytes are those of files, and what falls short is said."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from rich.console import Console

from hybridkern.lab.compress import formats
from hybridkern.lab.compress.models import codec_that_made
from hybridkern.lab.recipes import mnist
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.workflow import load_run
from hybridkern.lab.reproduce import codec as experiment
from hybridkern.lab.reproduce import coded
from hybridkern.lab.reproduce.coded import Coded, Sizes
from hybridkern.lab.reproduce.result import Row
from hybridkern.lab.reproduce.workflow import reproduce
from tests.recipes.images import SMALL, npz

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bytes_stand_beside_those_of_other_formats(tmp_path, monkeypatch):
    """Images of 6 x 8, which a flow of two levels takes as 8 x 8."""
    small = SMALL | {"validation": 8, "precision": "fp32", "levels": 2, "net": "resnet"}
    monkeypatch.setattr(experiment, "OPTIONS", experiment.OPTIONS | small)
    monkeypatch.setattr(experiment, "_FLOAT_IMAGES", 3)
    monkeypatch.setattr(mnist, "RECIPE", dataclasses.replace(mnist.RECIPE, draw=lambda *_: []))
    monkeypatch.setattr(coded, "encoders", lambda: {"PNG": formats._png, "WebP": formats._webp})
    data = npz(tmp_path / "data.npz", shape=(6, 8))
    page = reproduce("codec", tmp_path / "out", minutes=0.02, data=data, console=Console(file=io.StringIO()))
    assert imread(tmp_path / "out/rate.png").std() > 0.01
    record, task = load_run(tmp_path / "out/runs/idf")
    test = record.recipe.load(record.config).test.x.numpy().reshape(-1, 6, 8)
    rows = {row.label: row.values for row in page.result.tables[0].rows}
    assert list(rows) == ["hybridkern", "PNG", "WebP"]
    (path,) = (tmp_path / "out/runs/idf").glob("codec-*.npz")
    from hybridkern import codec

    made = codec.Codec(codec.load(path))
    assert codec_that_made(tmp_path / "out/runs/idf", True, made.fingerprint.hex()).shape == (1, 8, 8)
    assert rows["hybridkern"]["single"] == sum(len(made.encode(image[None, None])) for image in test)
    assert rows["hybridkern"]["strips"] == len(made.encode(test[:, None]))
    assert rows["hybridkern"]["single_bits"] == pytest.approx(rows["hybridkern"]["single"] * 8 / test.size)
    for name, options in {"PNG": {"optimize": True}, "WebP": {"lossless": True, "quality": 100, "method": 6}}.items():
        sizes = []
        for image in (*test, test.reshape(-1, 8)):
            out = io.BytesIO()
            Image.fromarray(image).save(out, name, **options)
            sizes.append(len(out.getvalue()))
        assert (rows[name]["single"], rows[name]["strips"]) == (sum(sizes[:-1]), sizes[-1])
    assert page.result.record["classifier_unchanged"] is True
    assert any("imagecodecs is not installed" in text for text in page.result.conditions)
    x = torch.from_numpy(test.reshape(len(test), -1))
    with evaluating(task):
        wide = -task.model.log_prob(task.images(x)).mean() / (48 * torch.log(torch.tensor(2.0)))
    assert page.result.record["runs"]["idf"]["test_bits_per_dim"] == pytest.approx(wide.item(), rel=1e-4)


def test_what_falls_short_is_said():
    rows = [
        Row("hybridkern", {"single_bits": 1.2, "strip_bits": 1.1}),
        Row("JPEG XL", {"single_bits": 1.3, "strip_bits": 1.2}),
    ]
    fast = Coded(Sizes(1, 1), 1, torch.zeros(1000, 1, 1, 1), 5.0, 5.0)
    assert experiment.shortfalls("mnist", 30.0, rows, fast, 0.01, True) == []
    rows[0] = Row("hybridkern", {"single_bits": 1.35, "strip_bits": 1.1})
    slow = dataclasses.replace(fast, decoding=20.0)
    found = experiment.shortfalls("mnist", 3.0, rows, slow, 0.06, False)
    assert found == [
        "The model had 3 minutes of training, not the usual 30.",
        "1.350 bits per dimension, above the target of 1.30.",
        "JPEG XL needs 1.300 bits per dimension with one file per image, hybridkern 1.350.",
        "50 images per second decoded, below 100.",
        "Networks of integers cost 0.060 bits per dimension, above 0.05.",
        "The classifier's outputs for the decoded images differ.",
    ]


def test_strips_are_images_one_below_the_other():
    images = torch.arange(5 * 2 * 3).reshape(5, 2, 3, 1).numpy()
    found = formats.strips(images, 2)
    assert [one.shape for one in found] == [(4, 3, 1), (4, 3, 1), (2, 3, 1)]
    assert found[1][2:].tolist() == images[3].tolist()


def test_networks_are_wider_where_there_is_time():
    assert [experiment.options("svhn", minutes)["hidden"] for minutes in (2, 59, 60, 200)] == [32, 32, 48, 64]
