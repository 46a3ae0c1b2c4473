"""Accelerated flows of zuko: changes after acceleration, what is left as it is and why, and what undo gives back."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import zuko
from torch import Tensor, nn
from zuko import flows, transforms
from zuko.flows import autoregressive, coupling, gaussianization

from hybridkern.integrations import accelerate, undo
from hybridkern.integrations._layer import Accelerated
from hybridkern.ops.masked_network.operator import has_fused_masked_network
from tests.integrations.zuko_cases import HIDDEN, SPLINE, both, couplings, elements, elementwise, normal, same


def _masks(layer: Any) -> None:
    """Another order: that of another instance, with its network."""
    torch.manual_seed(5)
    other = autoregressive.MaskedAutoregressiveTransform(4, order=[2, 0, 3, 1], **HIDDEN).double()
    layer.load_state_dict(other.state_dict())


def _method(layer: Any) -> None:
    def meta(self: Any, c: Any, x: Tensor) -> Any:
        return transforms.DependentTransform(transforms.AdditiveTransform(torch.tanh(x.sum(-1, keepdim=True) * 0)), 1)

    layer.meta = types.MethodType(meta, layer)


def _network() -> nn.Module:
    before = torch.ones(4, 4).tril(-1).bool()
    return zuko.nn.MaskedMLP(before.repeat_interleave(2, 0), (4,))


EDITS: dict[str, Callable[[Any], object]] = {
    "univariate": lambda layer: setattr(layer, "univariate", partial(transforms.MonotonicAffineTransform, slope=0.5)),
    "unknown": lambda layer: setattr(layer, "univariate", lambda a, b: transforms.MonotonicAffineTransform(b, a)),
    "masks": _masks,
    "method": _method,
    "passes": lambda layer: setattr(layer, "passes", 2),
    "activation": lambda layer: layer.hyper.__setitem__(1, nn.Tanh()),
    "odd activation": lambda layer: layer.hyper.__setitem__(1, nn.Softmax(-1)),
    "network": lambda layer: setattr(layer, "hyper", _network().double()),
    "weights": lambda layer: layer.hyper[2].weight.data.mul_(2),
    "forward": lambda layer: setattr(layer.hyper, "forward", lambda x: x.repeat_interleave(2, -1) * 0.1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_after_acceleration(edit: str) -> None:
    theirs, ours = both(lambda: autoregressive.MaskedAutoregressiveTransform(4, **HIDDEN), networks=True)
    x = normal(3, 4)
    ours().inv(ours()(x))
    for layer in (theirs, ours):
        torch.manual_seed(3)
        EDITS[edit](layer)
    same(ours().call_and_ladj(x), theirs().call_and_ladj(x))
    same(ours().inv.call_and_ladj(x), theirs().inv.call_and_ladj(x))


def test_masks_of_couplings_loaded() -> None:
    theirs, ours = both(lambda: coupling.GeneralCouplingTransform(4, **HIDDEN))
    x = normal(3, 4)
    ours()(x)
    for layer in (theirs, ours):
        layer.mask.copy_(torch.tensor([True, True, False, False]))
    same(ours().call_and_ladj(x), theirs().call_and_ladj(x))


def _own_affine(shift: Tensor, scale: Tensor) -> Any:
    return transforms.MonotonicAffineTransform(shift, scale)


def _wide() -> Any:
    spline = partial(transforms.MonotonicRQSTransform, bound=torch.ones(3))
    return gaussianization.ElementWiseTransform(3, univariate=spline, shapes=SPLINE["shapes"])


def _rotation() -> Any:
    return zuko.lazy.UnconditionalTransform(transforms.RotationTransform, torch.ones(3, 3))


LEFT = {
    "gaussianization": (lambda: flows.GF(3).transform.transforms[0], "GaussianizationTransform is not known"),
    "polynomial": (lambda: flows.BPF(3).transform.transforms[0], "is not known to hybridkern"),
    "integral": (lambda: flows.UNAF(3).transform.transforms[0], "is not known to hybridkern"),
    "ode": (lambda: flows.CNF(3).transform, "not known to hybridkern"),
    "function": (elementwise(univariate=_own_affine), "the univariate transform _own_affine is not known"),
    "arguments": (_wide, "these shapes or options"),
    "bins": (lambda: flows.NSF(3, bins=65).transform.transforms[0], "these shapes or options"),
    "slope": (lambda: flows.NSF(3, slope=1.5).transform.transforms[0], "these shapes or options"),
    "trained affine": (elementwise(), "a few parameters, shared by all examples"),
    "addition": (elementwise(univariate=transforms.AdditiveTransform, shapes=[()]), "an addition"),
    "rotation": (_rotation, "shared by all"),
    "base": (lambda: flows.NCSF(3).base, "a few operations of PyTorch"),
}


@pytest.mark.parametrize("name", LEFT)
def test_left_with_a_reason(name: str) -> None:
    build, reason = LEFT[name]
    holder = nn.ModuleList([build(), autoregressive.MaskedAutoregressiveTransform(3)])
    report = accelerate(holder)
    (entry,) = (entry for entry in report.left if entry.path == "0")
    assert reason in entry.reason
    assert not isinstance(holder[0], Accelerated)
    assert isinstance(holder[1], Accelerated)


def test_report() -> None:
    model = flows.MAF(3, transforms=2)
    report = accelerate(model, networks=True)
    layers = ["transform.transforms.0", "transform.transforms.1"]
    assert [entry.path for entry in report.faster] == [*layers, "base"]
    assert report.no_gain == report.unsupported == ()
    served = has_fused_masked_network(torch.zeros(1))
    wanted = "one operator" if served else "its weights times masks that are numbers"
    assert {entry.reason for entry in report.networks} == {wanted}
    assert [entry.path for entry in report.networks] == [f"{layer}.hyper" for layer in layers]


@pytest.mark.parametrize("version", ["1.5.0", "1.7.0", "1.60"])
def test_other_versions(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zuko, "__version__", version)
    model = flows.MAF(3)
    with pytest.raises(RuntimeError, match=f"zuko: got version {version}, expected 1.6"):
        accelerate(model)
    assert not any(isinstance(module, Accelerated) for module in model.modules())


@pytest.mark.parametrize("build", [couplings, lambda: elements(0), lambda: flows.NSF(4, residual=True, **HIDDEN)])
def test_undone_to_the_bit(build: Any) -> None:
    torch.manual_seed(0)
    model = build()
    x = torch.randn(3, model().event_shape[0])
    before = model().log_prob(x), [(type(m), sorted(vars(m))) for m in model.modules()]
    accelerate(model, networks=True)
    model().log_prob(x)
    model().transform.inv(x)
    undo(model)
    assert [(type(m), sorted(vars(m))) for m in model.modules()] == before[1]
    assert torch.equal(model().log_prob(x), before[0])
