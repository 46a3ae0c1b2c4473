"""Networks whose hidden channels are scaled compute what they did, and their channels reach equally far."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern.codec.convert import _conv
from hybridkern.codec.equalize import equalized
from hybridkern.codec.integers import ADD_STREAM, SET_STREAM, TO_OUTPUT
from hybridkern.codec.stages import Stage, stages_of
from hybridkern.nets import ConvNet, ResNet


def _hidden(stages: list[Stage], x: Tensor) -> list[Tensor]:
    """What the layers give, the last one the output."""
    found, stream = [], None
    for stage in stages:
        y = _conv(x, stage.weight, stage.bias)
        if stage.mode in (SET_STREAM, ADD_STREAM):
            stream = y if stream is None else stream + y
            y = stream
        x = y if stage.mode == TO_OUTPUT else y.relu()
        found.append(x)
    return found


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_the_network_stays_the_same_and_its_channels_reach_more_alike(name: str) -> None:
    torch.manual_seed(0)
    net = (ConvNet(3, 4, hidden=8) if name == "conv" else ResNet(3, 4, hidden=8, blocks=2)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(
                torch.randn_like(parameter)
                * torch.logspace(-2, 1, len(parameter)).view(-1, *[1] * (parameter.ndim - 1))
            )
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    stages, _, _ = stages_of(net)
    before, found = _hidden(stages, x), equalized(stages, x, _conv, torch.full((8,), torch.inf).double())
    after = _hidden(found, x)
    torch.testing.assert_close(after[-1], net(x).detach(), rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(after[-1], before[-1], rtol=1e-10, atol=1e-8)
    assert [stage.mode for stage in found] == [stage.mode for stage in stages]
    for hidden, scaled in zip(before[:-1], after[:-1], strict=True):
        spread = [(value.amax((0, 2, 3)).log2()).std() for value in (hidden, scaled)]
        assert spread[1] < 0.7 * spread[0]


def test_channels_that_are_never_on_stay() -> None:
    stages = [
        Stage(torch.ones(2, 1, 1, 1).double(), torch.tensor([-100.0, -50]).double(), 1),
        Stage(torch.ones(1, 2, 1, 1).double(), torch.ones(1).double(), TO_OUTPUT),
    ]
    found = equalized(stages, torch.rand(3, 1, 4, 4).double(), _conv, torch.full((2,), torch.inf).double())
    assert all(
        torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias) for a, b in zip(found, stages, strict=True)
    )
