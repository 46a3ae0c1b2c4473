"""Channels of a stream that are split: the network computes what it did, and passes on no more than the limit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hybridkern import codec
from hybridkern.codec.convert import _conv
from hybridkern.codec.integers import ADD_STREAM, SET_STREAM
from hybridkern.codec.splitting import split
from hybridkern.codec.stages import Stage, stages_of
from hybridkern.nets import ConvNet, ResNet
from tests.codec import cases


def _net(far: float) -> ResNet:
    """One in which two channels of the stream go so many times as far as the others."""
    torch.manual_seed(0)
    net = ResNet(3, 4, hidden=8, blocks=2).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        net.first.weight[[2, 5]] *= far
    return net


def _output(stages: list[Stage], x: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Of the network, and the most that a channel of its stream passes on."""
    stream, most = None, torch.zeros(())
    for stage in stages[:-1]:
        y = _conv(x, stage.weight, stage.bias)
        if stage.mode in (SET_STREAM, ADD_STREAM):
            stream = y if stream is None else stream + y
            y = stream.minimum(limits[:, None, None])
            most = most.maximum(y.amax())
        x = y.relu()
    return _conv(x, stages[-1].weight, stages[-1].bias), most


@pytest.mark.parametrize("far", [8.0, 20.0])
def test_the_network_stays_the_same_and_its_stream_reaches_less_far(far: float) -> None:
    net, x = _net(far), torch.randn(6, 3, 5, 5, dtype=torch.float64)
    stages, _, _ = stages_of(net)
    found, limits = split(stages, x, _conv)
    _, before = _output(stages, x, torch.full((8,), torch.inf).double())
    after, most = _output(found, x, limits)
    assert 8 < len(limits) <= 12 and torch.isfinite(limits).sum() == len(limits) - 8
    torch.testing.assert_close(most, limits.min())
    assert limits.min() < 0.51 * before
    torch.testing.assert_close(after, net(x).detach(), rtol=1e-12, atol=1e-12)
    wider = 3 * x  # beyond the sample too
    torch.testing.assert_close(_output(found, wider, limits)[0], net(wider).detach(), rtol=1e-12, atol=1e-12)


def test_what_has_no_stream_or_no_channel_that_reaches_far_stays() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64)
    alike = ResNet(3, 4, hidden=8, blocks=1).double()
    with torch.no_grad():
        alike.first.weight.zero_()
        alike.first.bias.fill_(1.0)
    for net, channels in ((ConvNet(3, 4, hidden=8).double(), 0), (alike, 8)):
        stages, _, _ = stages_of(net)
        found, limits = split(stages, x, _conv)
        assert found == stages and len(limits) == channels and not torch.isfinite(limits).any()


def test_integers_lose_less_of_a_linear_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth images of 256 levels, whose predictions a few channels carry."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(80, 1, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic", align_corners=True)
    x = (255 * smooth + torch.rand(80, 1, 16, 16, generator=generator)).round().clamp(0, 255).long()
    flow = cases.flow(
        shape=(1, 16, 16),
        strength=0,
        layers=4,
        hidden=16,
        coupling="quarter",
        net="resnet",
        center=127.5,
        scale=127.5,
    )
    flow.initialize(x)
    lost = []
    for finer in ((), (4, 3, 2)):
        monkeypatch.setattr("hybridkern.codec.splitting._FINER", finer)
        bits = codec.quantize(flow, x).bits
        lost.append(bits["integers"] - bits["float"])
    assert lost[1] < 0.8 * lost[0], lost
