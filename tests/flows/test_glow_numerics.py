"""Glow under stress: data without variance, one example, a learning rate ten times too large, 24 trained steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern import flows
from tests.flows.test_memory import images

SHAPE = (3, 8, 8)
NORMS = pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])


def constant_images(n: int) -> Tensor:
    """Every pixel of an image has one color."""
    return (torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5).expand(n, *SHAPE)


def dead_channel(n: int) -> Tensor:
    x = images(n)
    x[:, 1] = 0.25
    return x


DATA = {
    "constant color": constant_images,
    "all alike": lambda n: torch.full((n, *SHAPE), 0.125),
    "dead channel": dead_channel,
}


def train(flow: flows.Glow, batch: Tensor, steps: int, lr: float = 1e-3) -> None:
    optimizer = torch.optim.Adam(flow.train().parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -flow.log_prob(batch).mean() / flow.dim
        loss.backward()
        assert loss.isfinite()
        for name, parameter in flow.named_parameters():
            assert parameter.grad.isfinite().all(), name
        optimizer.step()


@pytest.mark.usefixtures("backend")
@NORMS
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("data", DATA)
def test_data_without_variance(data: str, batch: int, norm: str) -> None:
    """Other images still have a finite density after a few steps on such data."""
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=3, steps=2, hidden=8, norm=norm)
    train(flow, DATA[data](batch), 5)
    flow.eval()
    with flows.check_finite(flow):
        assert flow.log_prob(images(4)).isfinite().all()
        assert flow.sample(4).isfinite().all()


def test_a_channel_without_variance_keeps_its_scale() -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=1, steps=1, hidden=8)
    flow.initialize(dead_channel(16))
    log_scale = flow.levels[0].mixing.log_scale[0].view(4, 3)
    assert not log_scale[:, 1].any()
    assert (log_scale[:, [0, 2]] > 0).all(), "the others are scaled up to 1"


def test_initialization_gives_every_step_normalized_channels() -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8)
    for level in flow.levels:
        for step in level.steps:
            torch.nn.init.normal_(step.net.conv3.weight, std=0.05)
    seen = []
    for level in flow.levels:
        for step in level.steps:
            step.register_forward_pre_hook(lambda _, args: seen.append(args))
    x = images(64)
    flow.initialize(x)
    seen.clear()
    flow(x)
    for (first, second), _, weight, bias in seen:
        joined = torch.cat([first, second], 1).detach()
        mixed = torch.einsum("oi,bihw->bohw", weight, joined) + bias.view(-1, 1, 1)
        mean = mixed.mean((0, 2, 3))
        covariance = torch.cov(joined.transpose(0, 1).flatten(1), correction=0)
        scale = covariance.diagonal().rsqrt()
        rotated = torch.cov(mixed.detach().transpose(0, 1).flatten(1), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)
        # a rotation of channels of variance 1 keeps the sum of the variances
        torch.testing.assert_close(rotated.trace(), torch.tensor(float(len(scale))), rtol=1e-3, atol=0)


def test_first_training_batch_initializes_once() -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=1, steps=1, hidden=8)
    shift = flow.levels[0].mixing.shift
    with pytest.warns(RuntimeWarning, match="Glow: used before it was initialized"):
        flow.eval()(images(8))
    assert not shift.any(), "evaluation does not initialize"
    flow.train()(images(8))
    after = shift.detach().clone()
    assert after.any() and flow.state_dict()["_initialized"]
    flow(images(8, seed=5) + 1)
    assert torch.equal(shift, after)
    other = flows.Glow(SHAPE, levels=1, steps=1, hidden=8)
    other.load_state_dict(flow.state_dict())
    other.train()(images(8, seed=5) + 1)
    assert torch.equal(other.levels[0].mixing.shift, after), "a loaded flow is initialized"


def test_a_thousand_steps_at_ten_times_the_learning_rate() -> None:
    """1e-2 where 1e-3 is Adam's default."""
    torch.manual_seed(0)
    flow = flows.Glow((3, 4, 4), levels=2, steps=2, hidden=8)
    x = images(4000, shape=(3, 4, 4))
    optimizer = torch.optim.Adam(flow.train().parameters(), lr=1e-2)
    for step in range(1000):
        optimizer.zero_grad()
        loss = -flow.log_prob(x[4 * step : 4 * step + 4]).mean() / flow.dim
        loss.backward()
        optimizer.step()
        assert loss.isfinite(), f"step {step}"
    assert all(parameter.isfinite().all() for parameter in flow.parameters())
    assert flow.eval().log_prob(x[:64]).isfinite().all()


@pytest.mark.parametrize("memory", ["store", "invert"])
def test_round_trip_of_24_trained_steps(memory: str) -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=3, steps=8, hidden=16, memory=memory)
    x = images(600)
    optimizer = torch.optim.Adam(flow.train().parameters(), lr=2e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss = -flow.log_prob(x[10 * step : 10 * step + 10]).mean() / flow.dim
        loss.backward()
        optimizer.step()
    flow.eval()
    with torch.no_grad():
        z, log_det = flow(x[:100])
        back, other = flow.inverse(z)
    assert (back - x[:100]).abs().max() <= 1e-4
    torch.testing.assert_close(other, -log_det, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "levels.1.steps.0.net.conv2.bias",
            r"layer 'levels\.1\.steps\.0\.net\.conv2' \(Conv2d\) gave NaN: its parameter 'bias'",
        ),
        ("levels.0.mixing.log_scale", r"layer 'levels\.0\.mixing' \(Mixing\) gave NaN: its parameter 'log_scale'"),
    ],
)
@pytest.mark.parametrize("memory", ["store", "invert"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_check_finite_names_the_layer(direction: str, memory: str, part: str, message: str) -> None:
    torch.manual_seed(0)
    flow = flows.Glow(SHAPE, levels=2, steps=2, hidden=8, memory=memory)
    flow.initialize(images(8))
    with torch.no_grad():
        flow.get_parameter(part).view(-1)[0] = float("nan")
        flow.levels[1].steps[0].net.conv3.weight.fill_(0.1)
    run = (lambda: flow(images(4))) if direction == "forward" else (lambda: flow.inverse(torch.randn(4, flow.dim)))
    with flows.check_finite(flow), pytest.raises(flows.NonFiniteError, match=message):
        run()
