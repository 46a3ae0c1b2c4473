"""A convolution that does more than convolve is called; the fused network reads the weights of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from hybridkern import flows, nets
from hybridkern._calls import plain_weights
from hybridkern.hybrid import HybridIDF


class Adapter(nn.Module):
    """As adapters are built: the layer's weight shows through, and a call adds to what it gives."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base = base
        self.delta = nn.Parameter(torch.ones_like(base.weight))

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.base(x) + F.conv2d(x, self.delta, padding=self.base.padding))


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _doubled(net: nn.Module, name: str) -> None:
    old = getattr(net, name)
    new = Doubled(old.in_channels, old.out_channels, old.kernel_size, padding=old.padding)
    new.load_state_dict(old.state_dict())
    setattr(net, name, new)


def _replaced_method(net: nn.Module, name: str) -> None:
    conv = getattr(net, name)
    before = conv.forward
    conv.forward = lambda x: before(x) + 1


CHANGES: dict[str, Callable[[nn.Module, str], object]] = {
    "weight_norm": lambda net, name: weight_norm(getattr(net, name)),
    "spectral_norm": lambda net, name: spectral_norm(getattr(net, name)),
    "parametrized weight_norm": lambda net, name: parametrizations.weight_norm(getattr(net, name)),
    "parametrized spectral_norm": lambda net, name: parametrizations.spectral_norm(getattr(net, name)),
    "parametrization": lambda net, name: parametrize.register_parametrization(getattr(net, name), "weight", Halved()),
    "pruning": lambda net, name: prune.l1_unstructured(getattr(net, name), "weight", amount=0.5),
    "adapter": lambda net, name: setattr(net, name, Adapter(getattr(net, name))),
    "subclass": _doubled,
    "forward replaced": _replaced_method,
    "forward hook": lambda net, name: getattr(net, name).register_forward_hook(lambda m, args, out: out + 1),
    "forward pre-hook": lambda net, name: getattr(net, name).register_forward_pre_hook(lambda m, args: args[0] + 1),
    "no bias": lambda net, name: getattr(net, name).register_parameter("bias", None),
    "padding mode": lambda net, name: setattr(getattr(net, name), "padding_mode", "circular"),
}


def make() -> nets.ConvNet:
    torch.manual_seed(0)
    net = nets.ConvNet(2, 4, hidden=8)
    nn.init.normal_(net.conv3.weight, std=0.1)
    return net


def composed(net: nets.ConvNet, x: Tensor) -> Tensor:
    return net.conv3(F.relu(net.conv2(F.relu(net.conv1(x)))))


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_what_stands_in_a_convolution_acts(change: str, name: str, backend: str) -> None:
    net, x = make().eval(), torch.randn(3, 2, 5, 6)
    assert plain_weights(net.conv1, net.conv2, net.conv3) is not None
    plain = net(x).detach()
    CHANGES[change](net, name)
    got = net(x)
    torch.testing.assert_close(got, composed(net, x))
    if change not in ("weight_norm", "parametrized weight_norm", "no bias") and (change, name) != (
        "padding mode",
        "conv2",
    ):
        assert (got - plain).abs().max() > 1e-3, "the change acts"
    net.train()
    for _ in range(2):  # reparametrizations by hooks fail in the second step where they are not called
        net.zero_grad()
        net(x).square().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_gradients_of_a_called_network(backend: str) -> None:
    net, x = make(), torch.randn(3, 2, 5, 6)
    net(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    handle = net.conv2.register_full_backward_hook(lambda module, grads, outputs: None)
    net(x).square().sum().backward()
    handle.remove()
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5)


def test_hooks_on_all_modules_run() -> None:
    net, seen = make(), []
    handle = register_module_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    try:
        net(torch.randn(1, 2, 4, 4))
    finally:
        handle.remove()
    assert seen == ["Conv2d", "Conv2d", "Conv2d", "ConvNet"]


@pytest.mark.parametrize(
    "norm", [weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_fresh_networks_can_be_normalized(norm: Callable[[nn.Module], nn.Module]) -> None:
    for net in (nets.ConvNet(2, 4, hidden=8), nets.HighwayNet(2, 4, hidden=8)):
        norm(net.conv3 if isinstance(net, nets.ConvNet) else net.last)
        assert net(torch.randn(3, 2, 4, 4)).isfinite().all()


@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
def test_every_memory_mode_trains_what_stands_in(memory: str) -> None:
    gradients = {}
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    for mode in ("store", memory):
        torch.manual_seed(0)
        flow = flows.Glow((1, 8, 8), levels=1, steps=2, hidden=8, memory=mode)
        flow.initialize(x)
        for step in flow.levels[0].steps:
            nn.init.normal_(step.net.conv3.weight, std=0.05)
            step.net.conv2 = Adapter(step.net.conv2)
        flow.log_prob(x).mean().backward()
        gradients[mode] = torch.cat([parameter.grad.flatten() for parameter in flow.parameters()])
        assert all(step.net.conv2.delta.grad.any() for step in flow.levels[0].steps)
    torch.testing.assert_close(gradients[memory], gradients["store"], rtol=1e-3, atol=1e-4)


def test_a_watched_step_is_inverted_by_its_own_inverse() -> None:
    torch.manual_seed(0)
    flow = flows.Glow((1, 8, 8), levels=1, steps=2, hidden=8, memory="invert")
    x = torch.rand(4, 1, 8, 8) - 0.5
    flow.initialize(x)
    calls = []
    flow.levels[0].steps[1].register_forward_hook(lambda module, args, out: calls.append(len(args)))
    flow.log_prob(x).mean().backward()
    assert len(calls) == 3, "forward, and in backward its inverse and its forward pass once more"


def test_the_classifier_of_a_hybrid_idf_is_called_where_it_is_watched() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(2, 3), nn.Softmax(1))
    model = HybridIDF([lambda: nn.Linear(1, 1)], classifier, 1)
    x, y = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([0, 2])
    plain, seen = model.class_loss(x, y), []
    classifier.register_forward_hook(lambda module, args, out: seen.append("sequence"))
    classifier[1].register_forward_hook(lambda module, args, out: seen.append("softmax"))
    torch.testing.assert_close(model.class_loss(x, y), plain)
    assert seen == ["softmax", "sequence"]
