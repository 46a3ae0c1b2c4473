"""What options change: the networks' layout, precision and memory, and nothing of what a model computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import normflows as nf
import pytest
import torch
from FrEIA.modules import NICECouplingBlock
from torch import nn

from benchmarks.glow.allocations import peak_bytes
from hybridkern.integrations import _network, accelerate
from hybridkern.ops.coupling_network.operator import has_fused_network
from tests.integrations import freia_cases, nflows_cases, normflows_cases, zuko_cases
from tests.integrations.cases import Case, conv, inputs, mlp
from tests.integrations.test_equality import difference, gradients, trained

CASES = {
    "normflows": normflows_cases.CASES["glow diagonal"],
    "nflows": nflows_cases.CASES["glow"],
    "freia": freia_cases.CASES["images"],
    "zuko": zuko_cases.CASES["maf of a context"],
}
FUSED = pytest.mark.skipif(not has_fused_network(torch.zeros(1)), reason="the fused network is compiled code")
pytestmark = pytest.mark.filterwarnings("ignore:torch.lu is deprecated", "ignore:torch.triangular_solve is deprecated")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def compared(case: Case, **options: Any) -> tuple[list[float], list[float]]:
    """Differences of latents and log-determinant, and of gradients, in float32 from the library in float64."""
    theirs = trained(case, 3)
    ours = copy.deepcopy(theirs).float()
    accelerate(ours, **options)
    exact, given = inputs(case, torch.float64), inputs(case, torch.float32)
    expected = [*case.to_latent(theirs, *exact)[0], case.to_latent(theirs, *exact)[1]]
    got = [*case.to_latent(ours, *given)[0], case.to_latent(ours, *given)[1]]
    assert all(value.dtype is torch.float32 for value in got)
    assert all(p.dtype is not torch.bfloat16 for p in ours.parameters())
    wanted = gradients(case, theirs, exact)
    most = max(float(grad.abs().max()) for grad in wanted)
    return (
        [difference(a, b, floor=1.0) for a, b in zip(got, expected, strict=True)],
        [difference(a, b, 0.01 * most) for a, b in zip(gradients(case, ours, given), wanted, strict=True)],
    )


def test_networks_keep_their_numbers(case: Case) -> None:
    values, grads = compared(case, networks=True)
    assert max(values) <= 1e-5
    assert max(grads) <= 1e-5


def test_bfloat16_is_used_by_the_networks_alone(case: Case) -> None:
    values, grads = compared(case, networks=True, precision="bf16")
    assert 1e-5 < max(values) < 0.05  # seen: 0.002 to 0.02
    assert 1e-4 < max(grads) < 0.5


@FUSED
@pytest.mark.parametrize("library", ["normflows", "freia"])
def test_networks_of_glow_are_one_operator(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = CASES[library].build(), inputs(CASES[library], torch.float32)
    called = []

    def counting(*args: Any, **kwargs: Any) -> torch.Tensor:
        called.append(kwargs)
        return operator(*args, **kwargs)

    operator = _network.coupling_network
    monkeypatch.setattr(_network, "coupling_network", counting)
    report = accelerate(model, networks=True, memory="recompute")
    CASES[library].to_latent(model, *given)
    assert len(called) == len(report.networks)
    assert all(kwargs == {"save_hidden": False} for kwargs in called)
    assert {entry.reason for entry in report.networks} == {"one operator for images, computed again in backward"}


def _with(replaced: int, module: nn.Module) -> nn.Sequential:
    network = conv(2, 4)
    network[replaced] = module
    return network


UNFIT = {
    "activation": _with(1, nn.Tanh()),
    "slope": _with(3, nn.LeakyReLU(0.1)),
    "stride": _with(0, nn.Conv2d(2, 16, 3, padding=1, stride=2)),
    "padding": _with(4, nn.Conv2d(16, 4, 3)),
    "groups": _with(2, nn.Conv2d(16, 16, 1, groups=2)),
    "bias": _with(2, nn.Conv2d(16, 16, 1, bias=False)),
    "kernel": _with(2, nn.Conv2d(16, 16, 3, padding=1)),
    "mode": _with(0, nn.Conv2d(2, 16, 3, padding=1, padding_mode="circular")),
    "width": _with(2, nn.Conv2d(16, 8, 1)),
    "layers": nn.Sequential(*conv(2, 4), nn.Identity()),
    "function": torch.relu,
}


@pytest.mark.parametrize("name", UNFIT)
def test_other_networks_are_not_taken_for_it(name: str) -> None:
    assert _network.fused_weights(UNFIT[name]) is None
    watched = conv(2, 4)
    assert _network.fused_weights(watched) is not None
    watched[2].register_forward_hook(lambda *_: None)
    assert _network.fused_weights(watched) is None


class _Views(nn.Module):
    """A network that would fail on an image in channels_last."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs * 16, outputs * 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.is_contiguous()
        return self.linear(x.view(len(x), -1)).view(len(x), -1, 4, 4)


def test_unknown_networks_get_what_they_got() -> None:
    coupling = nf.flows.AffineCoupling(_Views(2, 4))
    accelerate(coupling)
    coupling([torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)])


@pytest.mark.parametrize("networks", [False, True])
def test_recomputed_networks_give_the_same_gradients(case: Case, networks: bool) -> None:
    torch.manual_seed(0)
    kept = case.build()
    # enough images for blocks that are left to the library where there are few, unless their networks are recomputed
    given = [value.repeat_interleave(8, 0) for value in inputs(case, torch.float32)]
    case.to_latent(kept, *given)
    again = copy.deepcopy(kept)
    accelerate(kept, networks=networks)
    accelerate(again, networks=networks, memory="recompute")
    for a, b in zip(gradients(case, again, given), gradients(case, kept, given), strict=True):
        # masked networks are one operator where they are kept, and the library's layers where they are recomputed
        torch.testing.assert_close(a, b, rtol=1e-5 if networks else 0, atol=1e-6 if networks else 0)


def _random_and_counted(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, outputs, 1))


def test_recomputed_networks_draw_and_count_once() -> None:
    """Dropout drops the same units again, and running statistics see a batch once."""
    torch.manual_seed(0)
    kept = nf.flows.AffineCouplingBlock(_random_and_counted(2, 4))
    again = copy.deepcopy(kept)
    accelerate(kept)
    accelerate(again, memory="recompute")
    x = torch.randn(5, 4, 3, 3)
    grads = []
    for block in (kept, again):
        torch.manual_seed(1)
        z, log_det = block(x)
        (z.square().sum() + log_det.sum()).backward()
        grads.append([p.grad for p in block.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(kept.buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b)


def _normalized(inputs: int, outputs: int) -> nn.Sequential:
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(inputs, 8))
    return nn.Sequential(spectral, nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, outputs))


@pytest.mark.parametrize("train_first", [True, False])
def test_recomputed_networks_are_those_of_the_forward_pass(train_first: bool) -> None:
    """Whatever a network writes into its buffers, and whatever mode it is in when the backward pass comes."""
    torch.manual_seed(0)
    block = nf.flows.AffineCouplingBlock(_normalized(2, 4)).double().train(train_first)
    again = copy.deepcopy(block)
    accelerate(again, memory="recompute")
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    losses = []
    for model in (block, again):
        torch.manual_seed(1)
        losses.append(model(x)[0].square().sum())
    (expected,) = torch.autograd.grad(losses[0], x)  # before anything is changed: batch norm itself would not notice
    again.train(not train_first)(3 * x.detach())
    after = [buffer.clone() for buffer in again.buffers()]
    (got,) = torch.autograd.grad(losses[1], x)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert all(map(torch.equal, again.buffers(), after))
    assert all(module.training is not train_first for module in again.modules())


def test_recomputed_networks_whose_frozen_parameters_were_changed() -> None:
    block = nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 4])).requires_grad_(False)
    accelerate(block, memory="recompute")
    z, _ = block(torch.randn(6, 4, requires_grad=True))
    with torch.no_grad():
        block.flows[1].param_map.net[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"net\.0\.weight: got values that were changed in place"):
        z.sum().backward()


def _written(block: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        block.F[0].bias.add_(1)


def _input(block: Any, x: torch.Tensor) -> None:
    x.mul_(2)


def _exchanged(block: Any, x: torch.Tensor) -> None:
    block.F[1] = nn.Tanh()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_written, r"0\.bias: got values that were changed in place"),
        (_input, "is at version 1; expected version 0"),
        (_exchanged, "Sequential: got other modules or parameters than in the forward pass"),
    ],
    ids=["written", "input", "exchanged"],
)
def test_recomputed_networks_that_would_not_be_those_of_the_forward_pass(change: Any, message: str) -> None:
    """Nothing that autograd keeps says so of modules: biases, for one, it never keeps."""
    block = NICECouplingBlock([(4,)], subnet_constructor=mlp)
    accelerate(block, memory="recompute")
    x = torch.randn(6, 4)
    (z,), _ = block((x,))
    change(block, x)
    with pytest.raises(RuntimeError, match=message):
        z.sum().backward()


@pytest.mark.parametrize("way", ["functional_call", "assigned"])
def test_recomputed_networks_have_the_parameters_of_the_forward_pass(way: str) -> None:
    """Also where others were in place of the module's own, for this pass or until it."""
    torch.manual_seed(0)
    block = nf.flows.AffineCouplingBlock(_normalized(2, 4)).double()
    ours = copy.deepcopy(block)
    accelerate(ours, memory="recompute")
    x = torch.randn(6, 4, dtype=torch.float64)
    found = []
    for model in (block, ours):
        torch.manual_seed(1)
        own: dict[str, Any] = dict(model.named_parameters())
        if way == "functional_call":
            own = {name: (1.5 * p).detach().requires_grad_() for name, p in own.items()}
            z, log_det = torch.func.functional_call(model, own, (x,))
        else:
            z, log_det = model(x)
            model.load_state_dict({k: 1.5 * v for k, v in model.state_dict().items()}, assign=True)
        loss = z.square().sum() + log_det.sum()
        found.append(torch.autograd.grad(loss, list(own.values())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


def test_recomputed_networks_that_were_thawed_after_the_pass() -> None:
    """The pass stays one with constants, in second derivatives too; the library's own layers take the values up."""
    torch.manual_seed(0)
    library = nf.flows.AffineCouplingBlock(nf.nets.ConvNet2d([2, 8, 8, 4], [3, 1, 3])).double()
    ours = copy.deepcopy(library)
    accelerate(ours, memory="recompute")
    found = []
    for block in (library, ours):
        x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        block.requires_grad_(False)
        loss = block(x)[0].square().sum()
        block.requires_grad_(True)
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        parameters = list(block.parameters())
        found.append(torch.autograd.grad(first.square().sum(), (x, *parameters), allow_unused=True))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-12, atol=1e-12)
    assert any(grad is not None for grad in found[0][1:]) and not any(grad is not None for grad in found[1][1:])


def _deep() -> nn.Module:
    return nf.NormalizingFlow(nf.distributions.DiagGaussian((4, 8, 8)), [nf.flows.GlowBlock(4, 64) for _ in range(32)])


@pytest.mark.parametrize("networks", [False, True])
def test_recomputed_networks_take_a_fifth_of_the_memory(networks: bool) -> None:
    x = torch.randn(2, 4, 8, 8)

    def peak(model: Any) -> int:
        def step() -> None:
            model.forward_kld(x).backward()

        parameters: Sequence[nn.Parameter] = list(model.parameters())
        return peak_bytes(step, list(parameters))

    model = _deep()
    with torch.no_grad():
        model.forward_kld(x)
    other = copy.deepcopy(model)
    accelerate(other, networks=networks, memory="recompute")
    assert peak(model) >= 5 * peak(other)
