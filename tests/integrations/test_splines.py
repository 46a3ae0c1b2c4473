"""Splines and autoregressive layers of nflows and normflows: where a library does something of its own, so do we."""

from __future__ import annotations

import copy
import math
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
from nflows import transforms
from nflows.transforms import made, splines
from nflows.transforms.base import InputOutsideDomain
from normflows.flows.neural_spline import coupling
from torch import Tensor, nn

from hybridkern.integrations import accelerate, undo
from hybridkern.integrations._layer import Accelerated
from tests.integrations.nflows_cases import _residual

pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
DIM = 5
BOUNDS = torch.tensor([0.5, 1.0, 2.0, 1.5, 3.0])
TAILS = ["circular", "linear", "linear", "circular", "linear"]
MASK = torch.tensor([0, 1, 0, 1, 1])
Built = tuple[Any, Any]


def _theirs(tails: Any, bound: Any = 2.0, **options: Any) -> nn.Module:
    return coupling.PiecewiseRationalQuadraticCoupling(
        MASK, _residual, 4, tails, bound, apply_unconditional_transform=True, **options
    )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nflows coupling": lambda: transforms.PiecewiseRationalQuadraticCouplingTransform(
        MASK, _residual, 4, "linear", 2.0, apply_unconditional_transform=True
    ),
    "nflows cdf": lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4, "linear", 2.0),
    "nflows maf": lambda: transforms.MaskedAffineAutoregressiveTransform(DIM, 8),
    "nflows spline maf": lambda: transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        DIM, 8, num_bins=4, tails="linear", tail_bound=2.0
    ),
    "normflows linear": lambda: _theirs("linear"),
    "normflows circular": lambda: _theirs("circular"),
    "normflows lists": lambda: _theirs(TAILS),
    "normflows bounds": lambda: _theirs("linear", BOUNDS),
    "normflows lists and bounds": lambda: _theirs(TAILS, BOUNDS),
    "normflows autoregressive": lambda: nf.flows.CircularAutoregressiveRationalQuadraticSpline(
        DIM, 1, 8, [1, 2], tail_bound=BOUNDS
    ),
    "normflows maf": lambda: nf.flows.MaskedAffineAutoregressive(DIM, 8),
}
BOXES: dict[str, tuple[Callable[[], nn.Module], tuple[type[Exception], ...]]] = {
    "nflows coupling": (
        lambda: transforms.PiecewiseRationalQuadraticCouplingTransform(MASK, _residual, 4),
        (InputOutsideDomain,),
    ),
    "nflows cdf": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4), (InputOutsideDomain,)),
    "nflows spline maf": (
        lambda: transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(DIM, 8, num_bins=4),
        (InputOutsideDomain,),
    ),
    "normflows": (lambda: _theirs(None), (RuntimeError, IndexError)),
}


def pair(build: Callable[[], nn.Module], **options: Any) -> Built:
    """The library's layer with parameters moved a little, in float64, and an accelerated copy."""
    torch.manual_seed(0)
    theirs = build().double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    ours = copy.deepcopy(theirs)
    assert accelerate(ours, **options).faster
    return theirs, ours


def same(ours: Any, theirs: Any, x: Tensor, **tolerance: float) -> None:
    """Values and log-determinants of both directions."""
    tolerance = tolerance or {"rtol": 1e-10, "atol": 1e-10}
    for run in (lambda layer: layer(x), lambda layer: layer.inverse(x)):
        torch.testing.assert_close(run(ours), run(theirs), **tolerance)


def values(count: int = 6) -> Tensor:
    """Numbers on both sides of the bounds, on them, beside them, and infinite."""
    edges = [2.0, -2.0, 0.5, -3.0, math.nextafter(2.0, 3.0), math.nextafter(2.0, 0.0), 0.0, 40.0, -1e6]
    x = 2 * torch.randn(count, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x.view(-1)[: len(edges)] = torch.tensor(edges, dtype=torch.float64)
    return x


@pytest.mark.parametrize("name", LAYERS)
def test_inside_and_outside_the_bounds(name: str) -> None:
    theirs, ours = pair(LAYERS[name])
    same(ours, theirs, values())
    theirs, ours = theirs.float(), ours.float()
    x = values().float()
    exact = copy.deepcopy(theirs).double()
    for run in (lambda layer, x: layer(x), lambda layer, x: layer.inverse(x)):
        for got, value, truth in zip(run(ours, x), run(theirs, x), run(exact, x.double()), strict=True):
            assert got.dtype is value.dtype
            scale = truth.abs().max().clamp_min(1.0)
            off = (value.double() - truth).abs().max() / scale
            assert (got.double() - truth).abs().max() / scale <= max(1e-5, 2 * off)  # steep where both are noise


@pytest.mark.parametrize("name", ["nflows coupling", "nflows cdf", "normflows linear", "normflows bounds"])
def test_infinite_values_stay(name: str) -> None:
    theirs, ours = pair(LAYERS[name])
    x = values()
    x[0, 1], x[1, 3] = math.inf, -math.inf
    same(ours, theirs, x)


def _failure(layer: Any, method: str, x: Tensor) -> Exception | None:
    try:
        getattr(layer, method)(x)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("name", BOXES)
def test_boxes_refuse_what_lies_outside(name: str) -> None:
    build, errors = BOXES[name]
    theirs, ours = pair(build)
    x = torch.rand(6, DIM, dtype=torch.float64)
    x[0, 0], x[1, 1] = 0.0, 1.0
    same(ours, theirs, x)
    for outside in (-0.1, 1.1, math.nan):
        x[2, 1] = outside
        for method in ("forward", "inverse"):
            expected, found = (_failure(layer, method, x) for layer in (theirs, ours))
            assert type(found) is type(expected)
            assert str(found) == str(expected)
            assert math.isnan(outside) or isinstance(found, errors)


@pytest.mark.parametrize("name", ["nflows coupling", "nflows cdf", "nflows spline maf", "normflows linear"])
def test_attributes_changed_afterwards(name: str) -> None:
    """The library reads them at each call."""
    theirs, ours = pair(LAYERS[name])
    same(ours, theirs, values())
    for attribute, value in (("tail_bound", 3.0), ("min_derivative", 0.1), ("min_bin_width", 0.05)):
        for layer in (theirs, ours):
            setattr(layer, attribute, value)
        same(ours, theirs, values())
    for layer in (theirs, ours):
        layer.tails = "cubic"
    for layer in (theirs, ours):
        with pytest.raises((RuntimeError, ValueError)):
            layer(values())


def test_bounds_loaded_afterwards() -> None:
    theirs, ours = pair(LAYERS["normflows lists and bounds"])
    same(ours, theirs, values())
    state = {key: 2 * value if "bound" in key else value for key, value in theirs.state_dict().items()}
    for layer in (theirs, ours):
        layer.load_state_dict(state)
    same(ours, theirs, values())


AUTOREGRESSIVE: dict[str, Callable[..., nn.Module]] = {
    "nflows": lambda **options: transforms.MaskedAffineAutoregressiveTransform(DIM, 8, **options),
    "nflows spline": lambda **options: transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        DIM, 8, num_bins=4, tails="linear", tail_bound=2.0, **options
    ),
    "normflows": lambda **options: nf.flows.MaskedAffineAutoregressive(DIM, 8, **options),
}


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_networks_are_called_as_often(name: str) -> None:
    """Dropout draws the same units, running statistics count the same batches, hooks see the same inputs."""
    theirs, ours = pair(lambda: AUTOREGRESSIVE[name](dropout_probability=0.4, use_batch_norm=True))
    seen: list[list[Tensor]] = []
    for layer in (theirs, ours):
        calls: list[Tensor] = []
        layer.autoregressive_net.register_forward_pre_hook(lambda _, given, calls=calls: calls.append(given[0].clone()))
        torch.manual_seed(1)
        layer(values())
        layer.inverse(values())
        seen.append(calls)
    assert len(seen[0]) == len(seen[1]) == 1 + DIM
    for got, expected in zip(seen[1], seen[0], strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(got, expected)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by a number at each call of a masked network of nflows."""
    calls: list[int] = []
    own = made.MADE.forward

    def forward(self: Any, *given: Any) -> Tensor:
        calls.append(1)
        return own(self, *given)

    monkeypatch.setattr(made.MADE, "forward", forward)
    return calls


NETWORKS: dict[str, tuple[dict[str, Any], bool]] = {
    "residual": ({"num_blocks": 2}, True),
    "no blocks": ({"num_blocks": 0}, True),
    "plain and random": ({"use_residual_blocks": False, "random_mask": True, "num_blocks": 2}, True),
    "tanh": ({"activation": nn.Tanh()}, True),
    "narrow": ({"hidden_features": 2}, True),
    "in place": ({"activation": nn.ReLU(inplace=True)}, False),
    "unknown": ({"activation": lambda x: x.cumsum(1)}, False),
    "batch norm": ({"use_batch_norm": True}, False),
    "dropout": ({"dropout_probability": 0.2}, False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_networks_are_read_where_they_may_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, read = NETWORKS[name]
    build = transforms.MaskedAffineAutoregressiveTransform
    theirs, ours = pair(lambda: build(**{"features": DIM, "hidden_features": 9, **options}), networks=True)
    calls = _counted(monkeypatch)
    torch.manual_seed(0)
    expected = theirs.inverse(values())
    calls.clear()
    torch.manual_seed(0)
    for context in (torch.enable_grad(), torch.no_grad()) if read else (torch.enable_grad(),):
        with context:
            torch.testing.assert_close(ours.inverse(values()), expected, rtol=1e-9, atol=1e-9)
    assert len(calls) == (0 if read else DIM)
    (entry,) = accelerate(copy.deepcopy(theirs), networks=True).networks
    assert ("unit by unit" in entry.reason) is read
    ours.autoregressive_net.final_layer.register_forward_hook(lambda *_: None)
    ours.inverse(values())
    assert len(calls) >= DIM


def test_masks_loaded_after_an_inverse() -> None:
    layers = [
        pair(lambda seed=seed: _random_masks(seed), networks=True)
        for seed in (1, 2)  # type: ignore[misc]
    ]
    ours = layers[0][1]
    ours.inverse(values())
    ours.load_state_dict(layers[1][0].state_dict())
    same(ours, layers[1][0], values(), rtol=1e-9, atol=1e-9)
    ours.autoregressive_net.final_layer.mask.fill_(1.0)  # no order any more
    layers[1][0].autoregressive_net.final_layer.mask.fill_(1.0)
    same(ours, layers[1][0], values(), rtol=1e-9, atol=1e-9)


def _random_masks(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return transforms.MaskedAffineAutoregressiveTransform(DIM, 9, use_residual_blocks=False, random_mask=True)


@pytest.mark.parametrize("watched", [None, 0, 1])
def test_permutations_before_linear_layers(watched: int | None) -> None:
    """The columns of the matrix are put in order, unless someone watches the layers."""
    layers = [transforms.RandomPermutation(DIM), transforms.LULinear(DIM), transforms.ReversePermutation(DIM)]
    theirs, ours = pair(lambda: transforms.CompositeTransform(layers))
    seen: list[int] = []
    if watched is not None:
        ours._transforms[watched].register_forward_hook(lambda *_: seen.append(1))
    same(ours, theirs, values())
    assert len(seen) == (watched is not None)
    with pytest.raises(ValueError, match="must be of size"):
        ours(values()[:, :3])


@pytest.mark.parametrize("networks", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_what_comes_out_may_be_written_into(name: str, networks: bool) -> None:
    theirs, ours = pair(LAYERS[name], networks=networks)
    for method in ("forward", "inverse"):
        gradients = []
        for layer in (theirs, ours):
            x = values().requires_grad_()
            y, log_det = getattr(layer, method)(x)
            y.add_(1)
            log_det.mul_(2)
            gradients.append(torch.autograd.grad(y.square().sum() + log_det.sum(), x)[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_pickles_and_undo(name: str) -> None:
    theirs, ours = pair(LAYERS[name])
    x = values()
    before = {path: set(vars(module)) for path, module in theirs.named_modules()}
    ours(x)
    ours.inverse(x)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    copied = copy.deepcopy(ours)
    assert any(isinstance(module, Accelerated) for module in copied.modules())
    same(copied, theirs, x)
    same(pickle.loads(pickle.dumps(ours)), theirs, x)
    undo(ours)
    assert {path: set(vars(module)) for path, module in ours.named_modules()} == before
    assert type(ours) is type(theirs)


class _Shifted(transforms.PiecewiseRationalQuadraticCouplingTransform):
    def _piecewise_cdf(self, inputs: Tensor, transform_params: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        outputs, log_det = super()._piecewise_cdf(inputs, transform_params, inverse)
        return outputs + 1, log_det


def _louder(self: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
    y, log_det = transforms.MaskedAffineAutoregressiveTransform._elementwise_forward(self, *given)
    return 3 * y, log_det


def test_a_users_own_are_left() -> None:
    layers = [_Shifted(MASK, _residual, 4, "linear"), LAYERS["nflows coupling"](), LAYERS["nflows maf"]()]
    theirs: Any = transforms.CompositeTransform(layers).double()
    ours = copy.deepcopy(theirs)
    report = accelerate(ours)
    assert [entry.path for entry in report.unsupported] == ["_transforms.0"]
    for layer in (theirs, ours):  # after acceleration
        layer._transforms[2]._elementwise_forward = types.MethodType(_louder, layer._transforms[2])
        layer._transforms[1].unconditional_transform._spline = lambda x, inverse=False: (2 * x, x.new_zeros(len(x)))
    torch.testing.assert_close(ours(values()), theirs(values()))


def test_functions_put_in_place_of_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    own = splines.unconstrained_rational_quadratic_spline
    monkeypatch.setattr(splines, "unconstrained_rational_quadratic_spline", lambda **given: own(**given))
    report = accelerate(nn.ModuleList([LAYERS["nflows coupling"](), LAYERS["nflows maf"]()]))
    assert "a custom function" in report.unsupported[0].reason
    assert [entry.path for entry in report.faster] == ["1"]


LEFT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one bin": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 1, "linear"), "2 to 64 bins"),
    "many bins": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 65, "linear"), "2 to 64 bins"),
    "no room": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4, min_bin_width=0.25), "smallest width"),
    "tails": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4, "circular"), "tails='circular'"),
    "steep": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4, min_derivative=1.5), "min_derivative"),
    "bound": (lambda: transforms.PiecewiseRationalQuadraticCDF([DIM], 4, "linear", torch.ones(DIM, 1)), ""),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_the_operator_does_not_take_is_left(name: str) -> None:
    build, reason = LEFT[name]
    report = accelerate(nn.ModuleList([build(), LAYERS["nflows maf"]()]))
    if reason:
        assert reason in report.unsupported[0].reason
        assert [entry.path for entry in report.faster] == ["1"]


class _Plain(nn.Sequential):
    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        return super().forward(x)


def _unscaled(inputs: int, outputs: int) -> nn.Module:
    return _Plain(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def test_networks_of_unknown_width_are_not_scaled_and_warned_of() -> None:
    theirs, ours = pair(lambda: transforms.PiecewiseRationalQuadraticCouplingTransform(MASK, _unscaled, 4, "linear"))
    found = []
    for layer in (theirs, ours):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer(values())
        found.append([(warning.category, str(warning.message)) for warning in caught])
    assert found[0] == found[1] != []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(ours, theirs, values())


def test_networks_of_low_precision() -> None:
    """Under autocast what the networks give is converted in registers."""
    theirs, ours = (layer.float() for layer in pair(LAYERS["nflows coupling"]))
    x = torch.rand(6, DIM) - 0.5
    truth = theirs(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = ours(x), theirs(x)
    for own, value, exact in zip(got, expected, truth, strict=True):
        assert own.dtype is value.dtype is torch.float32
        # the library computes knots in bfloat16 too
        assert (own - exact).abs().max() <= 1.1 * (value - exact).abs().max()
