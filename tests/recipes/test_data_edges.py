"""Data at the edge of what can be learned: refused before training in one line, or trained on to the end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hybridkern.lab.archive import DataError
from hybridkern.lab.data import load_npz
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import draw
from hybridkern.lab.recipes.flights import load_flights
from hybridkern.lab.recipes.images.official import SVHN
from hybridkern.lab.recipes.images.sources import load
from hybridkern.lab.recipes.recipe import get_recipe
from hybridkern.lab.recipes.workflow import train
from tests.recipes.images import SMALL

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 2


def grey(*shape: int) -> np.ndarray:
    return RNG.integers(0, 16, shape).astype(np.uint8)


def images(*shape: int, labels: np.ndarray = LABELS, **more: np.ndarray) -> dict[str, np.ndarray]:
    count = shape[0] if shape else 120
    return {"images": grey(*(shape or (120, 8, 8))), "labels": labels[:count], **more}


def table(x: np.ndarray, y: np.ndarray | None = None, **more: np.ndarray) -> dict[str, np.ndarray]:
    y = LABELS[: len(x)] if y is None else y
    return {"X_train": x, "y_train": y, "X_test": x, "y_test": y, **more}


def whole(low: int, high: int, shape: tuple[int, ...] = (120, 16)) -> np.ndarray:
    return RNG.integers(low, high, shape)


REAL = RNG.random((500, 8)) * 100
DELAY = REAL[:, 0]
ONE_CLASS = np.zeros(120, np.int64)
NEEDS_WHOLE = "expected whole numbers from 0 to 2\\^21"

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "one class": ("digits", images(labels=ONE_CLASS), "labels: got 1 class in the training part, expected at least 2"),
    "one class in training": (
        "digits",
        images(labels=np.r_[ONE_CLASS[:60], LABELS[:60]], split=np.repeat([0, 1], 60)),
        "got 1 class in the training part",
    ),
    "no images": ("digits", images(0, 8, 8), "images: got none"),
    "one image": ("digits", images(1, 8, 8), "the validation part is empty"),
    "two images": ("digits", images(2, 8, 8), "the test part is empty|1 class"),
    "constant": ("digits", {"images": np.full((120, 8, 8), 7, np.uint8), "labels": LABELS}, "every value .* is 7"),
    "black": ("digits", {"images": np.zeros((120, 8, 8), np.uint8), "labels": LABELS}, "every value .* is 0"),
    "two channels": ("digits", images(120, 8, 8, 2), "images: got 2 channels, expected 1 .* or 3"),
    "four channels": ("digits", images(120, 8, 8, 4), "images: got 4 channels"),
    "five channels": ("digits", images(120, 8, 8, 5), "images: got 5 channels"),
    "no rows": ("digits", images(120, 0, 8), "images: got shape"),
    "no channel": ("digits", images(120, 8, 8, 0), "images: got shape"),
    "number for images": ("digits", images(labels=LABELS) | {"images": np.uint8(3)}, "images: got shape"),
    "signed images": ("digits", images() | {"images": grey(120, 8, 8).astype(int)}, "images: got dtype int64"),
    "label for each image": ("digits", images(labels=np.arange(120)), "labels: got"),
    "labels beyond int64": ("digits", images(labels=LABELS.astype(np.uint64) + 2**63), "class numbers below 2\\^31"),
    "labels of 1e30": ("digits", images(labels=LABELS * 1e30), "class numbers below 2\\^31"),
    "infinite labels": ("digits", images(labels=LABELS + np.inf), "labels: got float64 values"),
    "words for labels": ("digits", images(labels=LABELS.astype(str)), "labels: got <U21 values"),
    "complex labels": ("digits", images(labels=LABELS * 1j), "labels: got complex128 values"),
    "truths for labels": ("digits", images(labels=LABELS > 0), "labels: got bool values"),
    "labels in columns": ("digits", images(labels=LABELS[:, None]), "labels: got shape"),
    "nothing is used": ("digits", images(split=np.full(120, -1)), "the training part is empty"),
    "split of numbers": ("digits", images(split=LABELS * 1.0), "split: got float64"),
    "near 2^24": ("digits", table(whole(0, 2**24)), NEEDS_WHOLE),
    "test near 2^24": ("digits", table(whole(0, 9), X_test=whole(2**24 - 9, 2**24)), "X_test: " + NEEDS_WHOLE),
    "beyond int64": ("digits", table(whole(0, 9).astype(np.uint64) + 2**63), NEEDS_WHOLE),
    "negative": ("digits", table(whole(-5, 9)), NEEDS_WHOLE),
    "truths": ("digits", table(whole(0, 2) > 0), NEEDS_WHOLE),
    "words": ("digits", table(whole(0, 2).astype(str)), NEEDS_WHOLE),
    "complex": ("digits", table(whole(0, 9) * 1j), NEEDS_WHOLE),
    "dates": ("digits", table(whole(0, 9).astype("M8[s]")), NEEDS_WHOLE),
    "infinite": ("digits", table(whole(0, 9) + np.inf), NEEDS_WHOLE),
    "constant rows": ("digits", table(whole(0, 9) * 0 + 3), "every value .* is 3"),
    "no test rows": (
        "digits",
        table(whole(0, 9), X_test=whole(0, 9, (0, 16)), y_test=LABELS[:0]),
        "test part is empty",
    ),
    "no columns": ("digits", table(whole(0, 9, (120, 0))), "got shape"),
    "constant target": ("flights", table(REAL, DELAY * 0), "y_train: every row of the training part is the same"),
    "target too small": ("flights", table(REAL, DELAY * 1e-300), "y_train: every row of the training part is the same"),
    "constant inputs": ("flights", table(REAL * 0, DELAY), "X_train: every row of the training part is the same"),
    "inputs beyond float32": ("flights", table(REAL * 1e298, DELAY), "X_train: got the magnitude"),
    "squares beyond float32": ("flights", table(REAL * 1e36, DELAY), "X_train: got the magnitude"),
    "target beyond float32": ("flights", table(REAL, DELAY * 1e298), "y_train: got the magnitude"),
    "target of low": ("flights", table(REAL, -DELAY * 1e36), "y_train: got the magnitude"),
    "infinite inputs": ("flights", table(REAL + np.inf, DELAY), "X_train: got float64 values, expected finite"),
    "target not a number": ("flights", table(REAL, DELAY * np.nan), "y_train: got float64 values, expected finite"),
    "nine rows": ("flights", table(REAL[:9], DELAY[:9]), "X_train: got 9 rows, expected 10 or more"),
    "seven columns": ("flights", table(REAL[:, :7], DELAY), "X_train: got shape"),
    "target in columns": ("flights", table(REAL, DELAY[:, None]), "y_train: got shape"),
    "words for inputs": ("flights", table(REAL.astype(str), DELAY), "X_train: got <U32 values"),
    "truths for inputs": ("flights", table(REAL > 1, DELAY), "X_train: got bool values"),
    "complex inputs": ("flights", table(REAL * 1j, DELAY), "X_train: got complex128 values"),
    "no flights to test": ("flights", table(REAL, DELAY, X_test=REAL[:0], y_test=DELAY[:0]), "X_test: got shape"),
    "no delays": ("flights", {"X_train": REAL}, "found the keys 'X_train', expected"),
    "photographs of one class": ("svhn", images(labels=ONE_CLASS), "got 1 class in the training part"),
    "no photographs": ("svhn", images(0, 8, 8), "images: got none"),
    "photographs of two channels": ("svhn", images(120, 8, 8, 2), "images: got 2 channels"),
    "photographs without labels": ("svhn", {"images": grey(120, 8, 8)}, "found the keys 'images', expected"),
    "more labels than photographs": (
        "svhn",
        images(labels=np.arange(121) % 2) | {"labels": np.arange(121) % 2},
        "labels",
    ),
    "no photograph to test": ("svhn", images(split=np.zeros(120, np.int8)), "the test part is empty"),
}


def read(recipe: str, path: Path) -> Any:
    if recipe == "digits":
        return load_npz(path)
    if recipe == "flights":
        return load_flights(path, clock=True)
    return load(get_recipe("svhn").config.updated("svhn", SMALL | {"data": str(path)}), SVHN)  # type: ignore[arg-type]


@pytest.mark.parametrize(("recipe", "arrays", "fault"), REFUSED.values(), ids=REFUSED.keys())
def test_data_that_cannot_be_used_are_refused_in_one_line(tmp_path, recipe, arrays, fault):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=fault) as caught:
        read(recipe, path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


TINY = {"hidden": 8, "head_hidden": 0, "components": 2}
USED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "four images": ("digits", images(4, 8, 8), TINY),
    "one pixel varies": ("digits", images() | {"images": np.pad(grey(120, 1, 1), ((0, 0), (0, 7), (0, 7)))}, TINY),
    "up to 2^20": ("digits", table(whole(0, 2**20)), TINY),
    "a high narrow range": ("digits", table(whole(2**21 - 3, 2**21)), TINY),
    "two columns": ("digits-tutorial", table(whole(0, 9, (120, 2))), {}),
    "constant photographs": ("svhn", images() | {"images": np.full((120, 8, 8), 7, np.uint8)}, SMALL),
    "one photograph to test": ("svhn", images(split=np.r_[np.zeros(119, int), 1]), SMALL),
    "a last batch of one": ("flights", table(REAL, DELAY), {"batch_size": 449, "hidden": 8, "layers": 2}),
    "one flight to test": (
        "flights",
        table(REAL, DELAY, X_test=REAL[:1], y_test=DELAY[:1]),
        {"hidden": 8, "layers": 2},
    ),
    "delays of 1e-20": ("flights", table(REAL, DELAY * 1e-20), {"hidden": 8, "layers": 2}),
}


@pytest.mark.parametrize(("recipe", "arrays", "options"), USED.values(), ids=USED.keys())
def test_data_at_the_edge_are_trained_on_to_the_end(tmp_path, recipe, arrays, options):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    options = options | {"data": str(path), "epochs": 1}
    done = train(recipe, options, tmp_path / "out", console=Console(file=io.StringIO()))
    assert done.pictures and json.loads((tmp_path / "out/metrics.json").read_text()) == done.metrics
    assert draw(done.task, 3, seed=0).shape[0] == 3


def test_what_the_model_cannot_take_is_one_line(tmp_path, monkeypatch):
    """Data that were looked at, and a model that makes too much of them."""
    from hybridkern.lab.recipes import digits

    def far(self, x):
        raise ValueError("the result: got the magnitude 16801717, expected less than 16777216")

    np.savez(tmp_path / "data.npz", **images())
    options = TINY | {"data": str(tmp_path / "data.npz"), "epochs": 1}
    monkeypatch.setattr(digits.HybridTask, "latent", far)
    with pytest.raises(RecipeError, match=r"^data\.npz: the model cannot take the test part \(the result: got"):
        train("digits", options, tmp_path / "out", console=Console(file=io.StringIO()))
    monkeypatch.undo()
    said = io.StringIO()
    monkeypatch.setattr(digits.HybridTask, "sample", far)
    done = train("digits", {}, tmp_path / "out", resume=True, console=Console(file=said))
    assert done.pictures == [] and (tmp_path / "out/metrics.json").exists()
    assert "not all pictures could be drawn (the result: got" in said.getvalue()
