"""memory="recompute" and "invert": the gradients of "store", whatever the networks do, and never wrong in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hybridkern import flows
from hybridkern.flows.memory import run_steps
from hybridkern.hybrid.metrics import bits_per_dim

SAVING = pytest.mark.parametrize("memory", ["recompute", "invert"])
SHAPE = (3, 8, 8)


def images(n: int, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Structured data: smooth random fields with a little noise, of about unit width."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, shape[0], 2, 2, generator=generator)
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    return 0.2 * smooth + 0.02 * torch.randn(n, *shape, generator=generator)


class Regular(nn.Module):
    """A network with batch norm and dropout."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(inputs, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def moved(flow: nn.Module, amount: float = 0.05, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += amount * torch.randn_like(parameter)


def build(memory: str, state: dict[str, Tensor] | None = None, **options: Any) -> flows.Glow:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, **{"levels": 2, "steps": 4, "hidden": 16, "memory": memory} | options)
    if state is None:
        flow.initialize(images(16))
        moved(flow)
    else:
        flow.load_state_dict(state)
    return flow.train()


def gradients(flow: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients, in the data too; the random numbers are the same at every call."""
    flow.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(7)
    loss = -flow.log_prob(x).mean()
    after = torch.rand(1)
    loss.backward()
    assert not torch.equal(after, torch.rand(1)), "the random state goes on"
    return loss.detach(), {name: p.grad.clone() for name, p in flow.named_parameters()} | {"x": x.grad}


def assert_near(got: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        error = (got[name] - value).abs().max() / value.abs().max()
        assert error <= relative, f"{name}: {error}"


OPTIONS: dict[str, dict[str, Any]] = {
    "conv": {},
    "highway": {"net": "highway", "form": "realnvp"},
    "additive": {"form": "additive"},
    "batchnorm": {"norm": "batchnorm"},
    "shuffle": {"permutation": "shuffle", "form": "nflows"},
    "regular": {"net": Regular},
}


@SAVING
@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_those_of_store(backend: str, memory: str, options: str) -> None:
    stored = build("store", **OPTIONS[options])
    saving = build(memory, stored.state_dict(), **OPTIONS[options])
    x = images(6)
    loss, expected = gradients(stored, x)
    got_loss, got = gradients(saving, x)
    assert torch.equal(got_loss, loss)
    assert_near(got, expected, 1e-4)
    for (name, buffer), other in zip(stored.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(buffer, other), f"{name}: running statistics are updated once"


@SAVING
def test_gradients_after_training(memory: str) -> None:
    flow = build(memory, steps=8, hidden=24)
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    losses = []
    for step in range(50):
        optimizer.zero_grad()
        loss = -flow.log_prob(images(16, seed=step)).mean()
        loss.backward()
        optimizer.step()
        losses.append(bits_per_dim(-loss.detach(), flow.dim, bits=0).item())
    assert losses[-1] < losses[0] - 0.5, "it learns"
    x = images(8, seed=100)
    _, got = gradients(flow, x)
    stored = build("store", flow.state_dict(), steps=8, hidden=24)
    _, expected = gradients(stored, x)
    assert_near(got, expected, 1e-4)


@SAVING
def test_gradients_in_float64(memory: str) -> None:
    stored = build("store").double()
    saving = build(memory, build("store").state_dict()).double()
    saving.load_state_dict(stored.state_dict())
    x = images(4).double()
    assert_near(gradients(saving, x)[1], gradients(stored, x)[1], 1e-11)


@SAVING
def test_bfloat16_under_autocast(memory: str) -> None:
    """Networks run in bf16 when they are run again, also where the backward pass is outside autocast."""
    stored = build("store")
    saving = build(memory, stored.state_dict())
    x = images(6)
    _, exact = gradients(stored, x)

    def lowered(flow: nn.Module) -> dict[str, Tensor]:
        flow.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = -flow.log_prob(leaf).mean()
        loss.backward()
        return {name: p.grad.clone() for name, p in flow.named_parameters()} | {"x": leaf.grad}

    expected, got = lowered(stored), lowered(saving)
    if memory == "recompute":
        assert_near(got, expected, 1e-6)
    for name, value in exact.items():
        noise = (expected[name] - value).norm()
        assert noise > 0, name
        assert (got[name] - value).norm() <= 3 * noise, name


@SAVING
def test_backward_inside_autocast_and_without_gradients_of_all(memory: str) -> None:
    stored, saving = build("store"), build(memory, build("store").state_dict())
    for flow in (stored, saving):
        for parameter in flow.levels[0].steps[1].parameters():
            parameter.requires_grad_(False)
    x = images(4)
    grads = []
    for flow in (stored, saving):
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            loss = flow.log_prob(x).mean()
        with torch.autocast("cpu", torch.bfloat16):
            loss.backward()
        assert flow.levels[0].steps[1].net.conv1.weight.grad is None
        grads.append({name: p.grad for name, p in flow.named_parameters() if p.grad is not None})
    assert_near(grads[1], grads[0], 1e-4)


@SAVING
def test_second_backward_pass_accumulates(memory: str) -> None:
    flow = build(memory)
    x = images(4)
    _, once = gradients(flow, x)
    flow.zero_grad()
    for _ in range(2):
        (-flow.log_prob(x).mean()).backward()
    for name, parameter in flow.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], rtol=1e-4, atol=1e-5)


@SAVING
def test_compiled_networks(memory: str) -> None:
    torch.compiler.reset()
    stored = build("store", steps=2)
    saving = build(memory, stored.state_dict(), steps=2)
    for level in saving.levels:
        for step in level.steps:
            step.net.compile(fullgraph=True, backend="aot_eager")
    x = images(4)
    assert_near(gradients(saving, x)[1], gradients(stored, x)[1], 1e-4)


class Shift(nn.Module):
    """A step without a backward pass of its own: dropout, one tensor, one input from outside."""

    def __init__(self, singular: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1e-30 if singular else 0.3))
        self.drop = nn.Dropout(0.5)

    def factor(self, x: Tensor) -> Tensor:
        return 1 + self.drop(torch.ones_like(x)) * self.scale.abs()

    def forward(self, state: tuple[Tensor], log_det: Tensor, given: Tensor) -> tuple[tuple[Tensor], Tensor]:
        factor = self.factor(state[0])
        return (state[0] * factor + given,), log_det + factor.log().sum(1)

    def inverse(self, state: tuple[Tensor], log_det: Tensor, given: Tensor) -> tuple[tuple[Tensor], Tensor]:
        factor = self.factor(state[0])
        return ((state[0] - given) / factor,), log_det - factor.log().sum(1)


@SAVING
def test_any_sequence_of_steps(memory: str) -> None:
    def run(mode: str) -> list[Tensor]:
        torch.manual_seed(0)
        shared = Shift()
        steps = [shared, Shift(), shared]  # one step twice
        x = torch.randn(5, 3).requires_grad_()
        given = [(torch.randn(3).requires_grad_(),) for _ in steps]
        (y,), log_det = run_steps(steps, (x,), torch.zeros(5), given, memory=mode)
        (y.square().sum() + log_det.sum()).backward()
        return [y, log_det, x.grad, *(own[0].grad for own in given), shared.scale.grad, steps[1].scale.grad]

    for got, expected in zip(run(memory), run("store"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="memory: got 'forget', expected 'store', 'recompute' or 'invert'"):
        flows.Glow(SHAPE, levels=1, memory="forget")
    with pytest.raises(ValueError, match="memory: got 'forget'"):
        run_steps([], (torch.zeros(1),), torch.zeros(1), memory="forget")


def test_invert_raises_where_it_cannot_and_names_the_step() -> None:
    """One coupling squeezes its half to nothing; float32 cannot tell afterwards what it was."""
    flow = build("invert", form="exp")
    with torch.no_grad():
        conv = flow.levels[0].steps[2].net.conv3
        conv.bias[: conv.out_channels // 2] = -25.0
        conv.bias[conv.out_channels // 2 :] = 5.0
    message = r"memory='invert': the input of step 2 of 4 \(GlowStep\) was recovered with a relative error of"
    with pytest.raises(flows.ReconstructionError, match=message):
        flow.log_prob(images(4)).mean().backward()
    assert all(parameter.grad is None for parameter in flow.levels[0].parameters())
    recompute = build("recompute", flow.state_dict(), form="exp")
    recompute.log_prob(images(4)).mean().backward()


def test_nothing_is_kept_without_gradients() -> None:
    flow = build("invert")
    with torch.no_grad():
        z, _ = flow(images(4))
    assert z.grad_fn is None


def _train(rank: int, world: int, memory: str, folder: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/{memory}", rank=rank, world_size=world)
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8, memory=memory).train()

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, x: Tensor) -> Tensor:
            return -self.flow.log_prob(x).mean()

    model = DistributedDataParallel(Loss()) if world > 1 else Loss()
    optimizer = torch.optim.SGD(flow.parameters(), lr=1e-4)
    for step in range(3):
        batch = images(8, seed=step)
        optimizer.zero_grad()
        model(batch.chunk(world)[rank]).backward()
        optimizer.step()
    torch.save(flow.state_dict(), f"{folder}/{memory}-{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
def test_two_processes_do_what_one_does(memory: str, tmp_path: Any) -> None:
    """DistributedDataParallel over gloo, actnorm initialized by the first batch of both ranks together."""
    _train(0, 1, memory, str(tmp_path))
    mp.start_processes(_train, args=(2, memory, str(tmp_path)), nprocs=2, start_method="spawn")
    one, first, second = (
        torch.load(tmp_path / f"{memory}-{world}-{rank}.pt", weights_only=True)
        for world, rank in ((1, 0), (2, 0), (2, 1))
    )
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def _gradients(memory: str, norm: str, wrap: bool, switch: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    flow = flows.Glow((2, 4, 4), levels=1, steps=2, hidden=8, norm=norm, memory=memory).double()
    flow.initialize(torch.randn(16, 2, 4, 4, dtype=torch.float64))
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if wrap:
        for module in [m for m in flow.modules() if isinstance(m, torch.nn.Conv2d)]:
            torch.nn.utils.parametrizations.spectral_norm(module)
    loss = -flow.train().log_prob(torch.randn(8, 2, 4, 4, dtype=torch.float64)).mean()
    if switch:
        flow.eval()
    loss.backward()
    assert flow.training is not switch
    return [parameter.grad for parameter in flow.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("memory", ["recompute", "invert"])
@pytest.mark.parametrize(("norm", "wrap"), [("batchnorm", False), ("actnorm", True)])
def test_a_backward_pass_is_of_its_forward_pass(memory: str, norm: str, wrap: bool) -> None:
    """Whatever mode the modules are in by then, and whatever the forward pass wrote into their buffers."""
    got, expected = (_gradients(mode, norm, wrap, switch=not wrap) for mode in (memory, "store"))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_a_watched_step_with_batch_norm_is_not_inverted() -> None:
    """Its inverse knows the averages over batches alone, not the statistics of this one."""
    flow = flows.Glow((2, 4, 4), levels=1, steps=2, hidden=8, norm="batchnorm", memory="invert")
    flow.levels[0].steps[1].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match=r"in step 1, which is watched by a hook .* expected memory='recompute'"):
        flow.train().log_prob(torch.randn(8, 2, 4, 4)).mean().backward()


@SAVING
@pytest.mark.parametrize("norm", ["batchnorm", "actnorm"])
def test_buffers_that_another_pass_changed(memory: str, norm: str) -> None:
    """Running averages of the forward pass normalize the backward pass, whatever a later batch made of them."""
    flow = build(memory, norm=norm, net="conv" if norm == "batchnorm" else Regular).double().eval()
    x = images(8).double().requires_grad_()
    loss = flow.log_prob(x).sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    flow.train()
    flow.log_prob(3 * x.detach())
    after = [buffer.clone() for buffer in flow.buffers()]
    (got,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert all(map(torch.equal, flow.buffers(), after))


@SAVING
def test_frozen_parameters_that_were_changed(memory: str) -> None:
    """As everywhere in autograd, a value that the backward pass needs and that is no more is an error."""
    flow = build(memory)
    frozen = flow.levels[0].steps[1].net.requires_grad_(False)
    loss = flow.log_prob(images(8)).sum()
    with torch.no_grad():
        frozen.conv2.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"net\.conv2\.weight of step 1 \(GlowStep\): got values .* changed"):
        loss.backward()
