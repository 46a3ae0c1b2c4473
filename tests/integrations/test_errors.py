"""What accelerate refuses, and what it leaves alone with a reason; nothing changes then."""

from __future__ import annotations

from typing import Any

import normflows as nf
import pytest
import torch
from FrEIA import modules
from nflows import transforms
from torch import nn

from hybridkern.integrations import accelerate, undo
from hybridkern.integrations._layer import Accelerated
from tests.integrations.cases import mlp
from tests.integrations.nflows_cases import _residual
from tests.integrations.normflows_cases import blocks


def untouched(model: nn.Module) -> bool:
    return not any(isinstance(module, Accelerated) for module in model.modules())


@pytest.mark.parametrize("model", [None, "glow", torch.zeros(2), blocks], ids=["None", "str", "tensor", "function"])
def test_no_module(model: Any) -> None:
    for function in (accelerate, undo):
        with pytest.raises(TypeError, match=r"model: got \w+, expected a torch\.nn\.Module"):
            function(model)


def test_no_layer_of_a_library() -> None:
    with pytest.raises(ValueError, match="model: got Sequential without a module of normflows, nflows, FrEIA"):
        accelerate(mlp(2, 2))


def test_accelerated_already() -> None:
    model = blocks()
    accelerate(model)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match="accelerated already"):
        accelerate(model)
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize("version", ["1.6.2", "2.0", "1.70"])
def test_other_version(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf, "__version__", version)
    model = blocks()
    with pytest.raises(RuntimeError, match=f"normflows: got version {version}, expected 1.7"):
        accelerate(model)
    assert untouched(model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"networks": 1}, TypeError, "networks: got int, expected a bool"),
        ({"precision": "fp16", "networks": True}, ValueError, "precision: got 'fp16', expected None or 'bf16'"),
        ({"precision": "bf16"}, ValueError, "precision: got 'bf16' with networks=False"),
        ({"memory": "invert"}, ValueError, "memory: got 'invert', expected None or 'recompute'"),
    ],
)
def test_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = blocks()
    with pytest.raises(error, match=message):
        accelerate(model, **arguments)
    assert untouched(model)


class _Softplus(transforms.AffineCouplingTransform):
    def _scale_and_shift(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift, scale = params.chunk(2, 1)
        return nn.functional.softplus(scale), shift


def _later_nflows() -> nn.Module:
    layer = transforms.AffineCouplingTransform([0, 1], _residual)
    layer.scale_activation = torch.exp
    return layer


def _patched(layer: nn.Module) -> nn.Module:
    layer.forward = lambda z: (z, 0)  # type: ignore[method-assign]
    return layer


LEFT = {
    "subclass": (lambda: _Softplus([0, 1], _residual), "a subclass of AffineCouplingTransform"),
    "scale map of the user's": (_later_nflows, "a custom scale map"),
    "scale map": (lambda: nf.flows.AffineCoupling(mlp(1, 2), scale_map="tanh"), "the scale map 'tanh'"),
    "identity": (lambda: nf.flows.MaskedAffineFlow(torch.ones(2)), "neither scale nor shift"),
    "permutation": (lambda: nf.flows.Permute(2, mode="other"), "the mode 'other'"),
    "split of channels": (nf.flows.Split, "views"),
    "actnorm": (lambda: transforms.ActNorm(2), "one PyTorch operation"),
    "mask": (lambda: nf.flows.MaskedAffineFlow(torch.tensor([0.5, 1.0]), mlp(2, 2)), "not of zeros and ones"),
    "method": (lambda: _patched(nf.flows.AffineCoupling(mlp(1, 2))), "a custom method: forward"),
    "spline": (lambda: transforms.PiecewiseQuadraticCDF([2]), "not known to hybridkern"),
    "bins": (lambda: transforms.PiecewiseRationalQuadraticCDF([2], 1), "2 to 64 bins"),
    "gin": (lambda: modules.AllInOneBlock([(4,)], subnet_constructor=mlp, gin_block=True), "a GIN block"),
    "clamp": (
        lambda: modules.GLOWCouplingBlock([(4,)], subnet_constructor=mlp, clamp_activation=torch.sigmoid),
        "a custom clamp activation",
    ),
    "negative clamp": (
        lambda: modules.GLOWCouplingBlock([(4,)], subnet_constructor=mlp, clamp=-1.0),
        "clamp is -1.0, not a positive number",
    ),
    "legacy squeeze": (lambda: modules.IRevNetDownsampling([(2, 4, 4)], legacy_backend=True), "legacy order"),
}


@pytest.mark.parametrize("name", LEFT)
def test_left_with_a_reason(name: str) -> None:
    build, reason = LEFT[name]
    holder = nn.ModuleList([build(), transforms.AffineCouplingTransform([0, 1], _residual)])
    report = accelerate(holder)
    (entry,) = (entry for entry in report.left if entry.path == "0")
    assert reason in entry.reason
    assert not isinstance(holder[0], Accelerated)
    assert isinstance(holder[1], Accelerated)
