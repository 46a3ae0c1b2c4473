"""What worked before accelerate works after it: layers that are not replaced, hooks, subclasses, odd networks."""

from __future__ import annotations

import copy
import itertools
import types
from collections.abc import Callable
from typing import Any

import normflows as nf
import pytest
import torch
from FrEIA import framework, modules
from nflows import transforms
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from hybridkern.integrations import accelerate, undo
from hybridkern.integrations._layer import Accelerated
from tests.integrations.cases import conv, mlp
from tests.integrations.compositions.networks import with_context
from tests.integrations.nflows_cases import _residual

pytestmark = pytest.mark.filterwarnings("ignore:torch.lu is deprecated")

PARTS: dict[str, Callable[[], nn.Module]] = {
    "C": lambda: nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 4, 2])),
    "P": lambda: nf.flows.Permute(2, mode="swap"),
    "A": lambda: nf.flows.ActNorm(2),
    "K": lambda: nf.flows.AffineConstFlow((2,)),
}
ORDERS = [order for n in (2, 3) for order in itertools.permutations("CPAK", n) if "C" in order]


@pytest.mark.parametrize("fresh", [True, False])
def test_scalar_log_determinants_in_any_order(fresh: bool) -> None:
    """Actnorm and constants give one number for the batch, couplings one for each example."""
    for order in ORDERS:
        torch.manual_seed(0)
        flows = [PARTS[kind]() for _ in range(2) for kind in order]
        theirs: Any = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), flows)
        x = torch.randn(8, 2)
        if not fresh:
            theirs.log_prob(x)
        ours = copy.deepcopy(theirs)
        accelerate(ours)
        for method in ("log_prob", "forward_kld", "inverse", "forward_and_log_det"):
            torch.testing.assert_close(getattr(ours, method)(x), getattr(theirs, method)(x))


class _Doubled(nf.flows.ActNorm):
    """A user's own."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = super().inverse(z)
        return 2 * z, log_det


class _Swapped(nf.flows.Split):
    """A user's own, with the mode of the library's."""

    def forward(self, z: Tensor) -> tuple[list[Tensor], int]:
        (z1, z2), own = super().forward(z)
        return [z2, z1], own


def _glow_of_a_subclass(kind: str) -> Any:
    block = nf.flows.GlowBlock(4, 8)
    if kind == "actnorm":
        block.flows[2].__class__ = _Doubled
    else:
        block.flows[0].flows[0].__class__ = _Swapped
    return block


@pytest.mark.parametrize("kind", ["actnorm", "split"])
def test_subclasses_inside_a_block(kind: str) -> None:
    theirs = _glow_of_a_subclass(kind)
    x = torch.randn(3, 4, 2, 2)
    theirs.inverse(x)
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    torch.testing.assert_close(ours.inverse(x), theirs.inverse(x))
    torch.testing.assert_close(ours(x), theirs(x))


class _Louder(transforms.AffineCouplingTransform):
    def _scale_and_shift(self, params: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = super()._scale_and_shift(params)
        return 3 * scale, shift


def test_subclassed_couplings_are_left() -> None:
    layers = [_Louder([0, 1, 0, 1], _residual), transforms.AffineCouplingTransform([0, 1, 0, 1], _residual)]
    theirs = transforms.CompositeTransform(layers)
    ours = copy.deepcopy(theirs)
    report = accelerate(ours)
    assert [entry.path for entry in report.unsupported] == ["_transforms.0"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(ours(x), theirs(x))


def _couplings() -> dict[str, tuple[nn.Module, nn.Module, Callable[[Any], Any]]]:
    """Model, a coupling in it, a call that runs its ``forward``."""
    block = nf.flows.AffineCouplingBlock(mlp(2, 4))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [block, nf.flows.Permute(4, "swap"), block])
    glow = nf.NormalizingFlow(nf.distributions.DiagGaussian((4, 2, 2)), [nf.flows.GlowBlock(4, 8)])
    chain = transforms.CompositeTransform([transforms.AffineCouplingTransform([0, 1, 0, 1], _residual) for _ in "ab"])
    inn = framework.SequenceINN(4)
    inn.append(modules.GLOWCouplingBlock, subnet_constructor=mlp)
    x, images = torch.randn(3, 4), torch.randn(3, 4, 2, 2)
    return {
        "normflows": (flow, block, lambda m: m(x)),
        "normflows inside": (flow, block.flows[1], lambda m: m(x)),
        "glow inside": (glow, glow.flows[0].flows[1], lambda m: m(images)),
        "nflows": (chain, chain._transforms[1], lambda m: m(x)),
        "freia": (inn, inn.module_list[0], lambda m: m(x)),
    }


@pytest.mark.parametrize("name", list(_couplings()))
@pytest.mark.parametrize("kind", ["layer", "global", "forward of its own"])
def test_hooks_run_as_often_as_before(name: str, kind: str) -> None:
    model, layer, call = _couplings()[name]
    if "glow" in name:
        call(model)
    seen: list[int] = []

    def count(module: nn.Module, *_: object) -> None:
        seen.append(id(module) == id(layer))

    def counted(own: Any, *given: Any, **named: Any) -> Any:
        seen.append(1)
        return type(own).forward(own, *given, **named)

    def watched() -> list[int]:
        handle: Any = None
        if kind == "layer":
            handle = layer.register_forward_hook(count)
        elif kind == "global":
            handle = register_module_forward_hook(count)
        else:
            layer.forward = types.MethodType(counted, layer)  # type: ignore[method-assign]
        seen.clear()
        call(model)
        if handle is None:
            del layer.forward
        else:
            handle.remove()
        return [sum(seen)]

    before = watched()
    accelerate(model)
    assert watched() == before
    assert before[0] > 0


class _Lower(nn.Module):
    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype, self.calls = inner, dtype, 0

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        self.calls += 1
        return self.inner(x).to(self.dtype)


def _layers(network: Callable[[int, int], nn.Module]) -> dict[str, tuple[nn.Module, Callable[[Any, Tensor], Any]]]:
    aio = modules.AllInOneBlock([(4,)], subnet_constructor=network)
    glow = modules.GLOWCouplingBlock([(4,)], subnet_constructor=network)
    rnvp = modules.RNVPCouplingBlock([(4,)], subnet_constructor=network)
    masked = nf.flows.MaskedAffineFlow(torch.tensor([1.0, 0, 1, 0]), network(4, 4), network(4, 4))
    return {
        "normflows": (nf.flows.AffineCouplingBlock(network(2, 4)), lambda m, x: m.inverse(x)),
        "masked": (masked, lambda m, x: m.inverse(x)),
        "nflows": (transforms.AffineCouplingTransform([0, 1, 0, 1], network), lambda m, x: m(x)),
        "all in one": (aio, lambda m, x: (m([x])[0][0], m([x], rev=True)[1])),
        "glow": (glow, lambda m, x: (m([x])[0][0], m([x], rev=True)[1])),
        "rnvp": (rnvp, lambda m, x: (m([x])[0][0], m([x], rev=True)[1])),
    }


NAMES = list(_layers(mlp))


LOWER = [(name, dtype) for name in NAMES for dtype in (torch.bfloat16, torch.float16)]


# the other libraries refuse float64 beside float32
@pytest.mark.parametrize(("name", "dtype"), [*LOWER, ("normflows", torch.float64), ("masked", torch.float64)])
def test_networks_of_another_precision(name: str, dtype: torch.dtype) -> None:
    """Every network runs as often as in the library, also where the operators do not take what it returns."""
    torch.manual_seed(0)
    theirs, call = _layers(lambda i, o: _Lower(mlp(i, o), dtype))[name]
    ours = copy.deepcopy(theirs)
    accelerate(ours, networks=True)  # so that all of them are worth it
    x = torch.randn(5, 4)
    (z, log_det), (own, own_log_det) = call(theirs, x), call(ours, x)
    tolerance = 1e-5 if dtype is torch.float64 else 0.05
    torch.testing.assert_close(own.double(), z.double(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(own_log_det.double(), log_det.double(), rtol=tolerance, atol=tolerance)
    calls = [[m.calls for m in model.modules() if isinstance(m, _Lower)] for model in (theirs, ours)]
    assert calls[0] == calls[1]


def test_sampling_in_inference_mode_then_training() -> None:
    """What a layer remembers of a call in inference mode serves autograd as well."""
    net = lambda i, o: with_context(mlp(i, o))  # noqa: E731
    chain = transforms.CompositeTransform([transforms.AffineCouplingTransform([0, 1, 1, 0], net) for _ in "ab"])
    glow: Any = nf.NormalizingFlow(nf.distributions.DiagGaussian((4, 2, 2)), [nf.flows.GlowBlock(4, 8)])
    for model, x in ((chain, torch.randn(3, 4)), (glow, torch.randn(3, 4, 2, 2))):
        accelerate(model)
        with torch.inference_mode():
            model(x)
        x = x.clone().requires_grad_()
        out = model.inverse(x)
        (out if isinstance(out, Tensor) else out[0]).sum().backward()
        assert x.grad is not None


def test_outputs_may_be_written_into() -> None:
    """An operator that keeps its output for the backward pass must not hand that out."""
    mask = torch.tensor([1.0, 0, 1, 0])
    for layer, call in (
        (nf.flows.MaskedAffineFlow(mask, mlp(4, 4), mlp(4, 4)), lambda m, x: m.inverse(x)[0]),
        (nf.flows.AffineCoupling(mlp(2, 4)), lambda m, x: m.inverse(list(x.chunk(2, 1)))[0][1]),
        (
            modules.ConditionalAffineTransform([(4,)], [(2,)], subnet_constructor=mlp),
            lambda m, x: m([x], [x[:, :2]], rev=True)[0][0],
        ),
    ):
        grads = []
        for accelerated in (False, True):
            if accelerated:
                accelerate(layer)
            x = torch.ones(3, 4, requires_grad=True)
            call(layer, x * 1).mul_(2).sum().backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads)


def test_recomputed_networks_for_two_backward_passes() -> None:
    model: Any = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), [nf.flows.AffineCouplingBlock(mlp(2, 4))])
    accelerate(model, memory="recompute")
    x = torch.randn(3, 4, requires_grad=True)
    loss = model.forward_kld(x)
    first = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(loss, x))


def test_masks_loaded_with_other_values() -> None:
    """A mask that is not of zeros and ones goes the library's way, whenever it came."""
    theirs = nf.flows.MaskedAffineFlow(torch.tensor([1.0, 0, 1, 0]), mlp(4, 4), mlp(4, 4))
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    x = torch.randn(3, 4)
    for mask in ([1.0, 0, 0, 0], [0.5, 1, 0, 0.25]):
        for layer in (theirs, ours):
            layer.b.copy_(torch.tensor([mask]))
        torch.testing.assert_close(ours.inverse(x), theirs.inverse(x))


@pytest.mark.parametrize("name", NAMES)
def test_undone_to_the_bit(name: str) -> None:
    layer, call = _layers(mlp)[name] if name != "nflows" else _layers(lambda i, o: with_context(mlp(i, o)))[name]
    x = torch.randn(5, 4)
    before = (call(layer, x), [(type(m), sorted(vars(m))) for m in layer.modules()], copy.deepcopy(layer.state_dict()))
    accelerate(layer, networks=True)
    assert any(isinstance(m, Accelerated) for m in layer.modules())
    call(layer, x)
    undo(layer)
    assert [(type(m), sorted(vars(m))) for m in layer.modules()] == before[1]
    assert all(torch.equal(a, b) for a, b in zip(call(layer, x), before[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(layer.state_dict().values(), before[2].values(), strict=True))


def test_small_images_of_batch_norm_and_dropout() -> None:
    """With networks=True, dropout draws as in the library."""
    network = nn.Sequential(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 4, 1))
    theirs = nf.flows.AffineCouplingBlock(network)
    ours = copy.deepcopy(theirs)
    accelerate(ours, networks=True)
    x = torch.randn(16, 4, 8, 8)
    values = []
    for layer in (theirs, ours):
        torch.manual_seed(0)
        values.append(layer.inverse(x))
    torch.testing.assert_close(*values)


def test_networks_that_view_their_images() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = conv(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.view(x.shape[0], -1).view(x.shape))

    layer = nf.flows.AffineCouplingBlock(Viewing())
    accelerate(layer, networks=True)
    assert layer(torch.randn(16, 4, 8, 8))[0].shape == (16, 4, 8, 8)


@pytest.mark.parametrize("rev", [False, True])
def test_a_trained_permutation_and_its_trained_inverse(rev: bool) -> None:
    """FrEIA keeps both as parameters; who unfreezes all of them trains the two apart."""
    torch.manual_seed(0)
    block = modules.AllInOneBlock([(6,)], subnet_constructor=nn.Linear, reverse_permutation=True).double()
    block.requires_grad_(True)
    with torch.no_grad():
        block.w_perm_inv.add_(0.1 * torch.randn_like(block.w_perm_inv))
    accelerated = copy.deepcopy(block)
    accelerate(accelerated)
    x = torch.randn(256, 6, dtype=torch.float64)
    found = []
    for model in (block, accelerated):
        (y,), log_det = model([x], rev=rev)
        (y.square().sum() + log_det.sum()).backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        found.append([y, log_det, *grads])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
