"""``hybridkern.lab.fit``: bad input is named before anything is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hybridkern
from hybridkern import flows, lab
from tests.lab.small import QUIET, clouds, hybrid, weights
from tests.saving.own import Embedding

pytestmark = pytest.mark.usefixtures("one_thread")


def with_gap() -> np.ndarray:
    x = clouds()[0]
    x[7, 1] = np.nan
    return x


def masked() -> np.ma.MaskedArray:
    x = np.ma.masked_array(clouds()[0])
    x[7] = np.ma.masked
    return x


X, Y = clouds()
UNKNOWN = np.r_[Y[:-1], -1]
FAR = np.arange(480).reshape(240, 2) * 99 + 2**24  # whole numbers that float32 does not hold
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": nn.Linear(2, 2)}, TypeError, "model: got Linear"),
    "gap": ({"x": with_gap()}, ValueError, "x: got NaN in row 7 and 0 others, expected finite numbers"),
    "words": ({"x": np.array([["a", "b"]])}, TypeError, "x: got an array of <U1, expected numbers"),
    "one dimension": ({"x": X[:, 0]}, ValueError, r"x: got shape \(240,\), expected \(N, ...\)"),
    "rows": ({"y": Y[:-1]}, ValueError, "y: got 239 rows, expected 240, as in x"),
    "fractions": ({"y": Y + 0.5}, TypeError, "y: got numbers that are not whole, expected classes"),
    "no head": ({"model": flows.Planar(2)}, TypeError, "y: got targets, but Planar has no head"),
    "context": ({"context": X}, TypeError, "context: got one, but HybridModel takes none"),
    "objective": ({"objective": "joint"}, TypeError, "objective: got 'joint'"),
    "share": ({"validation": 1.0}, ValueError, "validation: got 1.0, expected a share"),
    "parts": ({"validation": (X,)}, ValueError, "validation: got other kinds of rows"),
    "held": ({"validation": (with_gap(), Y)}, ValueError, r"validation\[0\]: got NaN in row 7"),
    "epochs": ({"epochs": 0}, ValueError, "epochs: got 0, expected a positive integer"),
    "minutes": ({"minutes": -1.0}, ValueError, "minutes: got -1.0, expected a finite, positive number"),
    "lr": ({"lr": None}, TypeError, "lr: got None"),
    "schedule": ({"schedule": "step"}, ValueError, "schedule: got 'step'"),
    "device": ({"device": "tpu"}, ValueError, "device: got 'tpu'"),
    "complex": ({"x": torch.tensor(X) + 1j}, TypeError, "x: got torch.complex128 .* expected a dense tensor of real"),
    "complex labels": ({"y": torch.tensor(Y) + 0j}, TypeError, "y: got torch.complex64"),
    "sparse": ({"x": torch.tensor(X).to_sparse()}, TypeError, "x: got torch.float64 in layout torch.sparse_coo"),
    "masked": ({"x": masked()}, ValueError, "x: got 2 masked values, expected none"),
    "class": ({"y": Y + 1}, ValueError, r"y: got label 2 in row \d+, expected 0 to 1"),
    "unlabelled": ({"y": UNKNOWN}, ValueError, "y: got label -1 in row 239, expected 0 to 1; objectives.SemiSup"),
    "held class": ({"validation": (X, Y + 1)}, ValueError, r"validation\[1\]: got label 2"),
    "frozen": ({"model": hybrid().requires_grad_(False)}, ValueError, "model: got parameters that are all frozen"),
    "seed": ({"seed": -1}, ValueError, r"seed: got -1, expected an integer from 0 to 2\*\*40"),
    "large seed": ({"seed": 2**63}, ValueError, "seed: got 9223372036854775808"),
    "no seed": ({"seed": 1.5}, TypeError, "seed: got 1.5"),
    "digits": ({"x": X + [0, 1.7e9]}, ValueError, r"x: got column 1 with values near 1.7e\+09 and a standard dev"),
    "whole": ({"x": (X + [1.7e9, 0]).astype(np.int64)}, ValueError, "x: got column 0 .* which torch.float32 rounds"),
    "lattice": (
        {"model": flows.IDF(2, layers=2, parts=2, hidden=8), "x": FAR, "y": None},
        ValueError,
        "rounds by up to 1",
    ),
    "width": ({"x": X[:, :1]}, ValueError, r"x: got shape \(240, 1\), expected \(N, 2\)"),
    "held width": ({"validation": (X[:, :1], Y)}, ValueError, r"validation\[0\]: got shape \(240, 1\), expected"),
    "no context": (
        {"model": flows.NSF(2, context=1), "y": None},
        ValueError,
        r"context: got none, expected \(N, width\)",
    ),
    "condition": (
        {"model": flows.NSF(2, context=64), "y": None, "context": X[:, 0]},
        ValueError,
        r"context: got shape \(240,\), expected \(N, width\); of one column, \(N, 1\)",
    ),
    "a context": ({"model": flows.NSF(2), "y": None, "context": X}, ValueError, "context: got shape .*, expected none"),
    "resume": ({"resume": True}, ValueError, "resume: got True without a folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name: str) -> None:
    given, error, message = REFUSED[name]
    arguments: dict[str, Any] = {"model": hybrid(), "x": X, "y": Y} | given
    model = arguments.pop("model")
    before = weights(model)
    with pytest.raises(error, match=message):
        lab.fit(model, arguments.pop("x"), arguments.pop("y"), **arguments, **QUIET)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    assert not any(getattr(part, "_started", False) for part in model.modules()), (
        "a later training starts from its data"
    )


def test_what_cannot_be_saved_says_so_before_training(tmp_path: Path) -> None:
    flow = flows.RealNVP(2, layers=1, activation=lambda: nn.ReLU())
    with pytest.raises(TypeError, match="activation: got <function"):
        lab.fit(flow, X, out=tmp_path / "run", epochs=1, **QUIET)
    assert not (tmp_path / "run").exists()
    own = flows.RealNVP(2, layers=1, hidden=4, context=Embedding(2))
    lab.fit(own, X, context=np.zeros((240, 3)), out=tmp_path / "own", epochs=1, **QUIET)
    hybridkern.load(tmp_path / "own", allow=[Embedding])
