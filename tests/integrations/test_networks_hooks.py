"""Coupling networks whose layers are watched, parametrized or adapted: they are called, never computed past."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
from FrEIA import modules
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from hybridkern.integrations import accelerate
from tests.integrations.cases import conv, mlp

Change = Callable[[nn.Sequential, int], object]


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class _Adapted(nn.Module):
    """Adds a product of small rank, as adapters do, and offers the weight of what it wraps."""

    def __init__(self, inner: nn.Module, add: nn.Module) -> None:
        super().__init__()
        self.inner, self.add = inner, add

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.add(x)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def _adapt(network: nn.Sequential, i: int) -> None:
    network[i] = _Adapted(network[i], copy.deepcopy(network[i]))


def _own_forward(network: nn.Sequential, i: int) -> None:
    layer = network[i]
    own = layer.forward
    layer.forward = lambda x: 2 * own(x)  # type: ignore[method-assign]


CHANGES: dict[str, Change] = {
    "hook": lambda network, i: network[i].register_forward_hook(lambda m, x, y: 2 * y),
    "pre hook": lambda network, i: network[i].register_forward_pre_hook(lambda m, x: (2 * x[0],)),
    "hook on an activation": lambda network, i: network[1].register_forward_hook(lambda m, x, y: y + 1),
    "weight norm": lambda network, i: parametrizations.weight_norm(network[i]),
    "spectral norm": lambda network, i: nn.utils.spectral_norm(network[i]),
    "old weight norm": lambda network, i: nn.utils.weight_norm(network[i]),
    "parametrization": lambda network, i: parametrize.register_parametrization(network[i], "weight", _Doubled()),
    "parametrized bias": lambda network, i: parametrize.register_parametrization(network[i], "bias", _Doubled()),
    "adapter": _adapt,
    "own forward": _own_forward,
}


def _image_layers(change: Change, i: int) -> dict[str, nn.Module]:
    def network(inputs: int, outputs: int) -> nn.Module:
        made = conv(inputs, outputs)
        change(made, i)
        return made

    glow = nf.flows.GlowBlock(4, 8, init_zeros=False)
    change(glow.flows[0].flows[1].param_map.net, i)
    return {
        "normflows": nf.flows.AffineCouplingBlock(network(2, 4)),
        "glow": nf.NormalizingFlow(nf.distributions.DiagGaussian((4, 8, 8)), [glow]),
        "freia": modules.GLOWCouplingBlock([(4, 8, 8)], subnet_constructor=network),
        "all in one": modules.AllInOneBlock([(4, 8, 8)], subnet_constructor=network),
    }


def _call(layer: Any, x: Tensor) -> Any:
    if isinstance(layer, nf.NormalizingFlow):
        return layer.inverse_and_log_det(x)
    return layer.inverse(x) if isinstance(layer, nf.flows.Flow) else (layer([x])[0][0], layer([x])[1])


def _compare(theirs: nn.Module, ours: nn.Module, x: Tensor, **options: Any) -> None:
    _call(theirs, x), _call(ours, x)  # actnorm and spectral norm set themselves
    theirs.load_state_dict(ours.state_dict())
    theirs.eval(), ours.eval()
    accelerate(ours, **options)
    found = []
    for layer in (theirs, ours):
        layer.zero_grad()
        z, log_det = _call(layer, x)
        (z.square().sum() + log_det.sum()).backward()
        gradients = [torch.zeros(()) if p.grad is None else p.grad for p in layer.parameters()]
        found.append((z, log_det, gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("networks", [False, True])
@pytest.mark.parametrize("layer", list(_image_layers(lambda *_: None, 0)))
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:torch.lu is deprecated", "ignore:.*weight_norm.*:FutureWarning")
def test_changed_convolutions_count(name: str, layer: str, networks: bool) -> None:
    for i in (0, 2, 4):
        pair = []
        for _ in "ab":
            torch.manual_seed(0)
            pair.append(_image_layers(CHANGES[name], i)[layer])
        _compare(*pair, torch.randn(16, 4, 8, 8), networks=networks)


@pytest.mark.parametrize("memory", [None, "recompute"])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_changed_linear_layers_count(name: str, memory: str | None) -> None:
    for i in (0, 2):
        pair = []
        for _ in "ab":
            torch.manual_seed(0)
            network = mlp(2, 4)
            CHANGES[name](network, i)
            pair.append(nf.flows.AffineCouplingBlock(network))
        _compare(*pair, torch.randn(6, 4), memory=memory)
