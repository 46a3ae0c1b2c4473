"""Every argument of every public constructor: what it takes, and one kind of error for what it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hybridkern import HybridIDF, distributions, flows, nets, ops, transforms
from hybridkern.hybrid import HybridModel, SelectiveClassifier, heads, objectives

NAN = math.nan


class _Bare:
    def __repr__(self) -> str:
        return "<something>"


SOMETHING = _Bare()
# Values that no argument of the kind takes.
NO_SIZE = ("3", 1.5, True, -1, 0, [3], {}, SOMETHING, np.float64(2), torch.tensor(True), torch.tensor([1, 2]), NAN)
NO_SIZES = ("33", 1.5, True, -1, 0, [1.5], ["a"], [True], [0], {1: 2}, SOMETHING, [None], [[3]], np.array([1.5]))
NO_NUMBER = ("1", True, [1.0], {}, SOMETHING, 1j, NAN, torch.ones(2))
NO_FLAG = ("yes", 1, 0, None, [], SOMETHING, 1.0)
NO_NAME = ("nothing", 1, None, True, ["conv"], SOMETHING, 1.5)
NO_FUNCTION = ("relu", 1, True, [nn.ReLU], 1.5, lambda *args: 3)
NO_FORM = ("nothing", 1, None, True, ["glow"], SOMETHING)
NO_MODULE = ("net", 1, None, [nn.ReLU()], SOMETHING, nn.ReLU)
PROBABILITY = (*NO_NUMBER, None, -0.1, 1, 1.5)
POSITIVE = (*NO_NUMBER, None, 0, -1.0, math.inf)
NOT_NEGATIVE = (*NO_NUMBER, None, -1.0, math.inf)
NUMBER = (*NO_NUMBER, None, math.inf)
SIZE, SIZES = (*NO_SIZE, None), (*NO_SIZES, None)

NO_WIDTH = tuple(value for value in SIZE if type(value) is not int or value != 0)
NO_CONTEXT = (*NO_WIDTH, nn.ReLU(), nn.Linear)
AUTOREGRESSIVE = {"dim": SIZE, "layers": SIZE, "hidden": SIZES, "context": NO_CONTEXT, "memory": NO_NAME}
AUTOREGRESSIVE |= {"activation": (*NO_FUNCTION, None)}

MLP = {"hidden": SIZES, "activation": NO_FUNCTION, "dropout": PROBABILITY}
HEAD = {"dim": SIZE, "hidden": SIZES, "activation": (*NO_FUNCTION, None), "dropout": PROBABILITY}
HEAD |= {"input_dropout": PROBABILITY}
BAYESIAN = {"dim": SIZE, "prior_precision": POSITIVE, "bias": NO_FLAG}
WEIGHT = {"lam": NOT_NEGATIVE, "per_dimension": NO_FLAG}
CONV = {"in_channels": SIZE, "out_channels": SIZE, "hidden": SIZE}


def _linear(i: int, o: int) -> nn.Module:
    return nn.Linear(i, o)


def _model() -> HybridModel:
    return HybridModel(flows.Planar(2), heads.Categorical(2, 2))


# Constructor, arguments that it takes, and for each of its arguments values that it does not.
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "RealNVP": (
        flows.RealNVP,
        {"dim": 4, "layers": 1, "hidden": 4},
        {"dim": (*SIZE, (3, 8), "188"), "layers": SIZE, "levels": SIZE, "net": NO_FUNCTION, "form": NO_FORM}
        | {"context": NO_CONTEXT}
        | MLP,
    ),
    "RealNVP on images": (
        flows.RealNVP,
        {"dim": (1, 4, 4), "layers": 1, "hidden": 4},
        {"dim": ((1, 4), (1, 4, 6), (1, 4.0, 4), ("1", 4, 4), (True, 4, 4)), "net": NO_FUNCTION, "hidden": SIZES}
        | {"context": (*NO_CONTEXT, 2, nn.Linear(2, 2))},
    ),
    "Glow": (
        flows.Glow,
        {"shape": (1, 4, 4), "levels": 1, "steps": 1, "hidden": 4},
        {
            "shape": (*SIZE, 4, (1, 4), (1, 4, 5), (1, 4.0, 4), "144", (0, 4, 4), (True, 4, 4)),
            "levels": SIZE,
            "steps": SIZE,
            "hidden": SIZE,
            "form": NO_FORM,
            "net": (*NO_FUNCTION, None),
            "norm": NO_NAME,
            "permutation": NO_NAME,
            "memory": NO_NAME,
            "context": NO_CONTEXT,
        },
    ),
    "IDF": (
        flows.IDF,
        {"dim": 4, "layers": 1, "hidden": 4},
        {
            "dim": (*SIZE, (3, 8)),
            "context": NO_CONTEXT,
            "layers": SIZE,
            "parts": (*SIZE, 1, 5),
            "lattice": NO_NAME,
            "prior": NO_NAME,
            "net": NO_FUNCTION,
            "center": NUMBER,
            "scale": POSITIVE,
            "levels": SIZE,
        }
        | MLP,
    ),
    "IDF, mixture": (flows.IDF, {"dim": 2, "parts": 2, "layers": 1, "prior": "mixture"}, {"components": SIZE}),
    "IDF on images": (
        flows.IDF,
        {"shape": (1, 4, 4), "layers": 1, "hidden": 4},
        {"shape": (4, "144", (1, 4), (1, 4, 6), (1, 4, 4.0)), "hidden": SIZES, "parts": (*SIZE, 1, 5)}
        | {"context": (*NO_CONTEXT, 2)},
    ),
    "Planar": (flows.Planar, {"dim": 2}, {"dim": SIZE, "layers": SIZE, "context": NO_CONTEXT}),
    "MAF": (flows.MAF, {"dim": 2, "layers": 1, "hidden": 4}, AUTOREGRESSIVE | {"form": NO_FORM}),
    "IAF": (flows.IAF, {"dim": 2, "layers": 1, "hidden": 4}, AUTOREGRESSIVE | {"form": NO_FORM}),
    "NSF": (
        flows.NSF,
        {"dim": 2, "layers": 1, "hidden": 4, "bins": 2},
        AUTOREGRESSIVE
        | {"bins": (*SIZE, 1, 65), "bound": POSITIVE, "autoregressive": NO_FLAG, "lu": NO_FLAG, "spline": NO_FORM},
    ),
    "Compose": (
        flows.Compose,
        {"dim": 2, "layers": [transforms.ActNorm(2)]},
        {"dim": SIZE, "layers": (None, 1, [], [1], "layer", nn.ReLU), "context": NO_CONTEXT, "memory": NO_NAME}
        | {"base": (1, "normal", nn.ReLU(), distributions.DiagonalGaussian(3))},
    ),
    "HybridIDF": (
        HybridIDF,
        {"netts": [lambda: nn.Linear(1, 1)], "classnet": nn.Linear(2, 2), "num_flows": 1},
        {
            "netts": ("net", None, 3, [], [1], [nn.ReLU, nn.ReLU], [lambda: 3]),
            "classnet": NO_MODULE,
            "num_flows": SIZE,
            "alpha": NUMBER,
            "D": (*SIZE, 1),
            "lattice": NO_NAME,
        },
    ),
    "HybridModel": (
        HybridModel,
        {"flow": flows.Planar(2), "head": heads.Categorical(2, 2)},
        {"flow": (*NO_MODULE, nn.ReLU()), "head": (*NO_MODULE, nn.ReLU(), heads.Categorical(3, 2))},
    ),
    "SelectiveClassifier": (
        SelectiveClassifier,
        {"model": _model()},
        {"model": NO_MODULE, "slack": (*NO_NUMBER, None)},
    ),
    "Categorical": (heads.Categorical, {"dim": 2, "classes": 2}, HEAD | {"classes": (*SIZE, 1)}),
    "Gaussian": (heads.Gaussian, {"dim": 2}, HEAD | {"noise": NO_NAME}),
    "BayesianLinear": (heads.BayesianLinear, {"dim": 2}, BAYESIAN | {"noise": POSITIVE, "trainable": NO_FLAG}),
    "BayesianLogistic": (heads.BayesianLogistic, {"dim": 2}, BAYESIAN | {"rows": NO_SIZE, "covariance": NO_NAME}),
    "Weighted": (objectives.Weighted, {"lam": 1.0}, WEIGHT),
    "JacobianWeighted": (objectives.JacobianWeighted, {"lam": 1.0}, WEIGHT | {"lam": POSITIVE}),
    "Convex": (objectives.Convex, {"lam": 0.5}, {"lam": (*NUMBER, -0.1, 1.1)}),
    "SemiSupervised": (
        objectives.SemiSupervised,
        {"base": objectives.Joint()},
        {
            "base": (*NO_MODULE, objectives.Joint, objectives.SemiSupervised(objectives.Joint())),
            "entropy_weight": NOT_NEGATIVE,
            "balanced": NO_FLAG,
        },
    ),
    "DiagonalGaussian": (distributions.DiagonalGaussian, {"dim": 2}, {"dim": SIZE, "trainable": NO_FLAG}),
    "DiscretizedLogistic": (distributions.DiscretizedLogistic, {"dim": 2}, {"dim": SIZE}),
    "DiscretizedLogisticMixture": (
        distributions.DiscretizedLogisticMixture,
        {"dim": 2},
        {"dim": SIZE, "components": SIZE},
    ),
    "mlp": (
        nets.mlp,
        {"in_features": 2, "out_features": 2},
        {"in_features": SIZE, "out_features": SIZE, "hidden": (*SIZES, 3), "activation": (*NO_FUNCTION, None)}
        | {"dropout": PROBABILITY, "input_dropout": PROBABILITY},
    ),
    "ConvNet": (nets.ConvNet, {"in_channels": 1, "out_channels": 1, "hidden": 2}, CONV),
    "HighwayNet": (nets.HighwayNet, {"in_channels": 1, "out_channels": 1, "hidden": 2}, CONV | {"layers": SIZE}),
    "Scaled": (nets.Scaled, {"net": nn.ReLU()}, {"net": NO_MODULE, "center": NUMBER, "scale": POSITIVE}),
    "AffineCoupling": (transforms.AffineCoupling, {"net": nn.ReLU()}, {"net": NO_MODULE, "form": NO_FORM}),
    "MADE": (
        nets.MADE,
        {"features": 2},
        {"features": SIZE, "outputs": SIZE, "hidden": SIZES, "context": NO_WIDTH, "activation": (*NO_FUNCTION, None)}
        | {"order": (1, "10", (0, 0), (1, 2), (0, 1, 2), (0.0, 1.0)), "zero_last": NO_FLAG},
    ),
    "Constant": (nets.Constant, {"out_features": 2}, {"out_features": SIZE}),
    "ActNorm": (transforms.ActNorm, {"dim": 2}, {"dim": SIZE}),
    "LULinear": (transforms.LULinear, {"dim": 2}, {"dim": SIZE}),
    "AffineElement": (transforms.AffineElement, {"form": "exp"}, {"form": NO_FORM}),
    "SplineElement": (
        transforms.SplineElement,
        {"spline": "zuko", "bins": 4, "bound": 3.0},
        {"spline": NO_FORM, "bins": (*SIZE, 1, 65), "bound": POSITIVE},
    ),
    "Coupling": (
        transforms.Coupling,
        {"net": nn.ReLU(), "element": transforms.AffineElement("exp"), "changed": 1},
        {"net": NO_MODULE, "changed": SIZE, "first": NO_FLAG},
    ),
    "Autoregressive": (
        transforms.Autoregressive,
        {"net": nets.MADE(2), "element": transforms.AffineElement("exp")},
        {"net": (*NO_MODULE, nn.ReLU(), nets.MADE(2, 3)), "inverted": NO_FLAG},
    ),
    "Mixing": (
        transforms.Mixing,
        {"steps": 1, "channels": 2},
        {"steps": SIZE, "channels": SIZE, "permutation": NO_NAME},
    ),
    "Permutation": (transforms.Permutation, {"dim": 2}, {"dim": SIZE}),
    "PlanarMap": (transforms.PlanarMap, {"dim": 2}, {"dim": SIZE, "context": NO_WIDTH}),
    "RoundingCoupling": (
        transforms.RoundingCoupling,
        {"sizes": (1, 1), "net": _linear},
        {"sizes": (*SIZES, (2,)), "net": (*NO_FUNCTION, None), "lattice": NO_NAME},
    ),
    "CouplingForm": (
        ops.CouplingForm,
        {},
        {"scale": NO_NAME, "shift": NO_NAME, "layout": NO_NAME, "clamp": POSITIVE, "eps": NOT_NEGATIVE}
        | dict.fromkeys(("offset", "gain", "shift_gain"), NUMBER)
        | {"negate": NO_FLAG},
    ),
}
ARGUMENTS = [(case, name) for case, (_, _, bad) in CASES.items() for name in bad]


@pytest.mark.parametrize(("case", "name"), ARGUMENTS, ids=str)
def test_refuses_and_names_the_argument(case: str, name: str) -> None:
    build, good, bad = CASES[case]
    wrong = []
    for value in bad[name]:
        try:
            build(**good | {name: value})
        except (TypeError, ValueError) as error:
            if not re.match(rf"(CouplingForm\.)?{name}: got .*, expected ", str(error), re.DOTALL):
                wrong.append(f"{value!r}: {type(error).__name__}: {error}")
        except Exception as error:
            wrong.append(f"{value!r}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{value!r} was taken")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", CASES)
def test_takes_what_it_says(case: str) -> None:
    build, good, _ = CASES[case]
    build(**good)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("integer", [np.int64, np.uint8, lambda v: np.array([[v]])[0, 0], torch.tensor], ids=range(4))
def test_takes_integers_of_other_libraries(case: str, integer: Callable[[int], Any]) -> None:
    build, good, _ = CASES[case]

    def other(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(integer, value))
        return integer(value) if type(value) is int else value

    built = build(**{name: other(value) for name, value in good.items()})
    for name in ("dim", "classes", "D", "num_flows"):
        assert type(getattr(built, name, 0)) is int, name
    shape = getattr(built, "shape", ())
    assert all(type(size) is int for size in shape)


def test_takes_arrays_of_sizes() -> None:
    assert flows.Glow(np.array([1, 4, 4]), levels=1, steps=1, hidden=4).shape == (1, 4, 4)
    assert flows.RealNVP(torch.tensor([1, 4, 4]), layers=1, hidden=4).shape == (1, 4, 4)
    assert flows.IDF(np.array([1, 4, 4]), layers=1, hidden=4).shape == (1, 4, 4)
    assert flows.RealNVP(np.prod((2, 2)), layers=1, hidden=np.array([3, 4])).dim == 4
    assert heads.Categorical(2, classes=np.array([0, 2, 1]).max() + 1).classes == 3
