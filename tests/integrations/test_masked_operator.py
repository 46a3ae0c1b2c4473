"""Masked networks as one operator: where it is used, that it gives the library's numbers, and where it is not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
import zuko
from nflows import transforms
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern.integrations import _made_operator, accelerate
from hybridkern.integrations.zuko import _network
from hybridkern.ops.masked_network.operator import has_fused_masked_network

pytestmark = pytest.mark.skipif(not has_fused_masked_network(torch.zeros(1)), reason="the operator is compiled code")
DIM = 6


def _nflows(**options: Any) -> nn.Module:
    return transforms.MaskedAffineAutoregressiveTransform(DIM, 20, **options)


def _normflows(**options: Any) -> nn.Module:
    return nf.flows.MaskedAffineAutoregressive(DIM, 20, **options)


def _zuko(**options: Any) -> nn.Module:
    return zuko.flows.autoregressive.MaskedAutoregressiveTransform(DIM, hidden_features=(20, 24), **options)


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "nflows": _nflows,
    "nflows tanh": lambda: _nflows(activation=torch.tanh),
    "nflows elu": lambda: _nflows(activation=F.elu, num_blocks=1),
    "nflows plain blocks": lambda: _nflows(use_residual_blocks=False, num_blocks=3),
    "nflows random masks": lambda: _nflows(use_residual_blocks=False, random_mask=True),
    "nflows splines": lambda: transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        DIM, 20, num_bins=4, tails="linear", tail_bound=3.0
    ),
    "normflows": _normflows,
    "normflows plain blocks": lambda: _normflows(use_residual_blocks=False),
    "zuko": _zuko,
    "zuko elu": lambda: _zuko(activation=nn.ELU),
    "zuko residual": lambda: _zuko(residual=True),
    "zuko order": lambda: _zuko(order=torch.randperm(DIM)),
    "zuko splines": lambda: _zuko(
        univariate=zuko.transforms.MonotonicRQSTransform, shapes=[(4,), (4,), (3,)], residual=True
    ),
}


def call(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    done: tuple[Tensor, Tensor] = (
        layer().call_and_ladj(x) if isinstance(layer, zuko.lazy.LazyTransform) else layer.forward(x)
    )
    return done


def pair(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """A layer of the library, and its copy with the operator."""
    torch.manual_seed(0)
    theirs = build()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    theirs = theirs.to(dtype)
    ours = copy.deepcopy(theirs)
    accelerate(ours, networks=True)
    return theirs, ours


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each call of the operator."""
    found: list[int] = []
    for module in (_made_operator, _network):
        planned = module.planned

        def counted(*args: Any, _planned: Any = planned) -> Tensor:
            found.append(len(args[1]))
            out: Tensor = _planned(*args)
            return out

        monkeypatch.setattr(module, "planned", counted)
    return found


def gradients(layer: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Values, and gradients of a nonlinear function of them."""
    given = x.clone().requires_grad_()
    z, log_det = call(layer, given)
    loss = (z.square().sum(1) + log_det.square()).sum()
    return [z, log_det], list(torch.autograd.grad(loss, [given, *layer.parameters()]))


def assert_same(theirs: nn.Module, ours: nn.Module, x: Tensor, rtol: float = 1e-5) -> None:
    for got, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        for a, b in zip(got, expected, strict=True):
            scale = max(1.0, float(b.detach().abs().max()))
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("batch", [1, 70])
@pytest.mark.parametrize("name", BUILDS)
def test_values_and_gradients(name: str, batch: int, uses: list[int]) -> None:
    theirs, ours = pair(BUILDS[name])
    x = torch.randn(batch, DIM)
    assert_same(theirs, ours, x)
    assert len(uses) == 1
    with torch.no_grad():
        for a, b in zip(call(ours, x), call(theirs, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(uses) == 2


@pytest.mark.parametrize("name", ["nflows tanh", "nflows", "normflows", "zuko elu", "zuko residual"])
def test_second_derivatives(name: str) -> None:
    layers = pair(BUILDS[name], torch.float64)
    found = []
    for layer in layers:
        x = torch.randn(3, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        inputs = [x, *layer.parameters()]
        z, log_det = call(layer, x)
        first = torch.autograd.grad((z.square().sum(1) + log_det.square()).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for got, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8 * max(1.0, float(expected.abs().max())))


def test_more_dimensions(uses: list[int]) -> None:
    theirs, ours = pair(_zuko)
    assert_same(theirs, ours, torch.randn(5, 3, DIM).reshape(15, DIM))
    x = torch.randn(2, 5, DIM)
    for a, b in zip(call(ours, x), call(theirs, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(uses) == 2


def _net(layer: Any) -> Any:
    return layer.hyper if isinstance(layer, zuko.lazy.LazyTransform) else layer.autoregressive_net


def _first(layer: Any) -> Any:
    net = _net(layer)
    return net[0] if isinstance(net, nn.Sequential) else net.initial_layer


def _hook(layer: Any) -> None:
    _first(layer).register_forward_hook(lambda module, inputs, out: out + 1)


def _own_forward(layer: Any) -> None:
    first = _first(layer)
    first.forward = lambda x: F.linear(x, 2 * first.weight * first.mask, first.bias)


def _other_module(layer: Any) -> None:
    last = nn.Linear(20 if layer.__class__.__module__.find("zuko") < 0 else 24, 2 * DIM)
    nn.init.ones_(last.weight)
    net = _net(layer)
    if isinstance(net, nn.Sequential):
        net[len(net) - 1] = last
    else:
        net.final_layer = last


def _parametrized(layer: Any) -> None:
    nn.utils.parametrizations.weight_norm(_first(layer))


CHANGES = {"hook": _hook, "forward of its own": _own_forward, "module": _other_module, "parametrization": _parametrized}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_a_changed_network_is_called(build: Callable[[], nn.Module], change: str, uses: list[int]) -> None:
    """Also where it was read before."""
    torch.manual_seed(0)
    theirs, ours = pair(build)
    x = torch.randn(4, DIM)
    call(ours, x)
    for layer in (theirs, ours):
        torch.manual_seed(1)
        CHANGES[change](layer)
    assert_same(theirs, ours, x)
    assert len(uses) == 1


@pytest.mark.parametrize("build", [_nflows, _normflows])
def test_another_activation_is_seen(build: Callable[[], nn.Module], uses: list[int]) -> None:
    theirs, ours = pair(build)
    x = torch.randn(4, DIM)
    call(ours, x)
    for layer in (theirs, ours):
        for block in _net(layer).blocks:
            block.activation = torch.tanh
        if "activation" in _net(layer).__dict__:
            _net(layer).activation = torch.tanh
    assert_same(theirs, ours, x)
    assert len(uses) == 2
    for layer in (theirs, ours):
        _net(layer).blocks[0].activation = F.softplus
    assert_same(theirs, ours, x)
    assert len(uses) == 2


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_an_activation_that_was_written_into_is_seen(build: Callable[..., nn.Module], uses: list[int]) -> None:
    theirs, ours = pair(lambda: build(activation=nn.ELU if build is _zuko else nn.ELU()))
    x = torch.randn(4, DIM)
    assert_same(theirs, ours, x)
    for layer in (theirs, ours):
        for module in layer.modules():
            if isinstance(module, nn.ELU):
                module.alpha = 3.0
    assert_same(theirs, ours, x)
    assert len(uses) == 1


@pytest.mark.parametrize("options", [{"dropout_probability": 0.5}, {"use_batch_norm": True}, {"context_features": 3}])
@pytest.mark.parametrize("build", [_nflows, _normflows])
def test_what_draws_counts_or_has_a_context_is_called(
    build: Callable[..., nn.Module], options: dict[str, Any], uses: list[int]
) -> None:
    theirs, ours = pair(lambda: build(**options))
    x, context = torch.randn(8, DIM), torch.randn(8, 3) if "context_features" in options else None
    results = []
    for layer in (theirs, ours):
        torch.manual_seed(2)
        results.append(layer.forward(x, context))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not uses
    assert all(map(torch.equal, theirs.buffers(), ours.buffers()))
    for layer in (theirs, ours):
        layer.eval()
    results = [layer.forward(x, context) for layer in (theirs, ours)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert len(uses) == ("dropout_probability" in options)


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_edits_of_weights_and_masks_are_seen(build: Callable[[], nn.Module], uses: list[int]) -> None:
    """Also through ``.data``, which leaves no trace in a tensor's version."""
    theirs, ours = pair(build)
    x = torch.randn(4, DIM)
    call(ours, x)
    for layer in (theirs, ours):
        first = _first(layer)
        first.weight.data.mul_(3)
        first.mask[:, 0] = 0
    assert_same(theirs, ours, x)
    for layer in (theirs, ours):
        first = _first(layer)
        first.weight = nn.Parameter(torch.ones_like(first.weight))
    assert_same(theirs, ours, x)
    assert len(uses) == 3


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_autocast_calls_the_network(build: Callable[[], nn.Module], uses: list[int]) -> None:
    theirs, ours = pair(build)
    x = torch.randn(4, DIM)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for a, b in zip(call(ours, x), call(theirs, x), strict=True):
            torch.testing.assert_close(a.float(), b.float(), rtol=3e-2, atol=3e-2)
    assert not uses


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_without_the_option_the_network_is_called(build: Callable[[], nn.Module], uses: list[int]) -> None:
    layer = build()
    accelerate(layer)
    call(layer, torch.randn(4, DIM))
    assert not uses


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_copies_and_pickles(build: Callable[[], nn.Module], uses: list[int]) -> None:
    theirs, ours = pair(build)
    x = torch.randn(4, DIM)
    call(ours, x)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        with torch.no_grad():
            _first(other).weight.mul_(2)
        assert_same(theirs, ours, x)
        changed = copy.deepcopy(theirs)
        with torch.no_grad():
            _first(changed).weight.mul_(2)
        assert_same(changed, other, x)
    assert len(uses) == 5


@pytest.mark.parametrize("build", [_nflows, _normflows, _zuko])
def test_forward_mode_and_vmap(build: Callable[[], nn.Module]) -> None:
    theirs, ours = pair(build, torch.float64)
    x, tangent = (torch.randn(3, DIM, dtype=torch.float64) for _ in range(2))
    jvps = [torch.func.jvp(lambda v, layer=layer: call(layer, v), (x,), (tangent,)) for layer in (theirs, ours)]
    for expected, got in zip(jvps[0], jvps[1], strict=True):
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_report_says_so() -> None:
    words = {
        _nflows: "one operator, inverted unit by unit",
        _normflows: "one operator, inverted unit by unit",
        _zuko: "one operator",
    }
    for build, expected in words.items():
        (entry,) = accelerate(build(), networks=True).networks
        assert entry.reason == expected


@pytest.mark.parametrize("name", ["nflows", "normflows", "zuko"])
def test_networks_under_another_default_dtype_are_the_library_s(name: str) -> None:
    """The libraries keep masks in float32 whatever torch's default dtype is, and multiply them with the weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        layer, x = BUILDS[name](), torch.randn(9, DIM)
    finally:
        torch.set_default_dtype(before)
    expected = call(layer, x)
    accelerate(layer, networks=True)
    for found, wanted in zip(call(layer, x), expected, strict=True):
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
