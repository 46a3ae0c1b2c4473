"""What accelerate says it did: three groups, every layer once; and that it does nothing where nothing is gained."""

from __future__ import annotations

from typing import Any

import normflows as nf
import pytest
import torch
from FrEIA import framework, modules
from nflows import distributions, flows, transforms
from torch import nn

from hybridkern.integrations import Report, accelerate
from tests.integrations.cases import mlp
from tests.integrations.nflows_cases import _residual, real_nvp
from tests.integrations.normflows_cases import glow


def names(entries: Any) -> list[str]:
    """The classes in a group."""
    return sorted(entry.kind.rpartition(".")[2] for entry in entries)


def groups(report: Report) -> dict[str, list[str]]:
    """The three groups by class."""
    return {name: names(getattr(report, name)) for name in ("faster", "no_gain", "unsupported")}


def test_every_layer_of_a_glow_once() -> None:
    """Two levels of two blocks, a squeeze and a base; models and blocks only run layers, networks are no layers."""
    model = glow("diagonal")
    report = accelerate(model)
    inside = ["ActNorm", "AffineCoupling", "Invertible1x1Conv"]
    assert groups(report) == {
        "faster": sorted([*inside * 4, "DiagGaussian", "DiagGaussian"]),
        "no_gain": sorted([*["Merge", "Split"] * 4, "Merge", "Squeeze", "Squeeze"]),
        "unsupported": [],
    }
    paths = [entry.path for entry in (*report.faster, *report.no_gain, *report.unsupported)]
    assert len(paths) == len(set(paths))
    assert names(report.networks) == ["ConvNet2d"] * 4
    assert {entry.path for entry in report.replaced} > {"", "flows.0.0", "flows.0.0.flows.0"}


def test_groups_of_nflows() -> None:
    layers = [
        transforms.ActNorm(4),
        transforms.AffineCouplingTransform([0, 1, 0, 1], _residual, lambda features: transforms.ActNorm(features)),
        transforms.OneByOneConvolution(4),
        transforms.PiecewiseRationalQuadraticCouplingTransform([0, 1, 0, 1], _residual, tails="linear"),
        transforms.PiecewiseQuadraticCouplingTransform([0, 1, 0, 1], _residual, tails="linear"),
        transforms.LULinear(4),
        transforms.QRLinear(4, 2),
    ]
    report = accelerate(flows.Flow(transforms.CompositeTransform(layers), distributions.StandardNormal([4])))
    assert groups(report) == {
        "faster": [
            *("AffineCouplingTransform", "LULinear", "PiecewiseRationalQuadraticCouplingTransform", "StandardNormal")
        ],
        "no_gain": ["ActNorm", "OneByOneConvolution"],
        "unsupported": ["PiecewiseQuadraticCouplingTransform", "QRLinear"],
    }


def test_splines_of_normflows_once() -> None:
    """Its wrappers only run the layers inside, which are counted."""
    flow = [nf.flows.CoupledRationalQuadraticSpline(4, 1, 8), nf.flows.LULinearPermute(4)]
    report = accelerate(nf.NormalizingFlow(nf.distributions.DiagGaussian(4), flow))
    assert groups(report) == {
        "faster": [
            *("DiagGaussian", "PiecewiseRationalQuadraticCDF", "PiecewiseRationalQuadraticCoupling"),
            *("_LULinear", "_RandomPermutation"),
        ],
        "no_gain": [],
        "unsupported": [],
    }
    assert names(report.networks) == ["ResidualNet"]


def test_layers_used_twice_are_counted_once() -> None:
    coupling = nf.flows.AffineCouplingBlock(mlp(2, 4))
    report = accelerate(nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [coupling, coupling]))
    assert names(report.faster) == ["AffineCoupling", "DiagGaussian"]


def test_printed() -> None:
    lines = str(accelerate(real_nvp())).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "faster now: 5 layers",
        "nothing to gain: 0 layers",
        "not supported: 0 layers",
        "networks of the couplings:",
    ]
    reason = "affine_coupling; features by slices or one gather"
    assert f"  4 x nflows.transforms.coupling.AffineCouplingTransform: {reason}" in lines


def _sequence(*kinds: Any, **options: Any) -> nn.Module:
    inn = framework.SequenceINN(4)
    for kind in kinds:
        inn.append(kind, **options)
    return inn


WITHOUT = {
    "normflows": lambda: nf.NormalizingFlow(
        nf.distributions.DiagGaussian(4), [nf.flows.Permute(4), nf.flows.ActNorm(4), nf.flows.Planar((4,))]
    ),
    "nflows": lambda: flows.Flow(
        transforms.CompositeTransform(
            [
                transforms.MaskedPiecewiseQuadraticAutoregressiveTransform(4, 8, tails="linear"),
                transforms.RandomPermutation(4),
            ]
        ),
        distributions.StandardNormal([4]),
    ),
    "freia": lambda: _sequence(modules.PermuteRandom, modules.ActNorm),
    "freia nice": lambda: _sequence(modules.NICECouplingBlock, subnet_constructor=mlp),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_coupling_nothing_changes(name: str) -> None:
    model = WITHOUT[name]()
    before = [(type(module), dict(vars(module))) for module in model.modules()]
    report = accelerate(model)
    assert [(type(module), dict(vars(module))) for module in model.modules()] == before
    assert (report.faster, report.replaced, report.networks) == ((), (), ())
    assert report.no_gain or report.unsupported
    assert "faster now: 0 layers" in str(report)


def test_models_without_a_coupling_inside_stay() -> None:
    """Beside one that has one."""
    both = nn.ModuleList([WITHOUT["normflows"](), nf.flows.AffineCouplingBlock(mlp(2, 4))])
    accelerate(both)
    assert type(both[0]) is nf.NormalizingFlow
    assert type(both[1]) is not nf.flows.AffineCouplingBlock
    torch.manual_seed(0)
    assert torch.isfinite(both[0].sample(3)[1]).all()
