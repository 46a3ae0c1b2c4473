"""Networks of 8-bit integers: the same integers as the reference, by products in tiles."""

from __future__ import annotations

import pytest
import torch

from hybridkern import codec, use_backend
from hybridkern.codec.triton import DeviceNet
from tests.codec import cases
from tests.codec.test_integers import NETS, made, sample


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(3, 5, 7, 6), (1, 70, 1, 1), (33, 2, 3, 9)])
def test_every_layer_gives_the_integers_of_the_reference(name: str, size: tuple[int, ...]) -> None:
    inputs, outputs, height, width = size
    x = sample(inputs, height, width, 3)
    net, _ = made(name, inputs, outputs, x)
    x = torch.cat([x, torch.tensor([-(2**31), 2**31 - 1]).view(2, 1, 1, 1).expand(2, *x.shape[1:])])
    expected = net.reference(x.clamp(-(2**30), 2**30))
    with use_backend("triton"):
        assert torch.equal(net(x), expected)
        assert torch.equal(net(x[1:2]), expected[1:2])
        assert net._built is not None and type(net._built[1]) is DeviceNet
        assert net(x[:0]).shape == (0, *expected.shape[1:])


def test_a_flow_gives_the_same_latents_and_masses() -> None:
    model = codec.quantize(cases.flow(prior="mixture", coupling="quarter", net="resnet"), cases.images(0, 20))
    x = cases.images(1, 2)
    with use_backend("reference"):
        z = model.latents(x)
        wanted = codec.Codec(model).encode(x)
    with use_backend("triton"):
        assert torch.equal(model.latents(x), z)
        assert torch.equal(model.images(z), x)
        assert codec.Codec(model).encode(x) == wanted


def test_a_plan_that_points_elsewhere_is_refused() -> None:
    net, _ = made("resnet", 3, 2, sample(3, 4, 4))
    arrays = (net.weights, net.numbers, net.tables)
    DeviceNet(net.plan, *arrays)
    for row, column, value in (
        (2, 0, 4),
        (1, 2, 3),
        (2, 3, 7),
        (1, 3, 2),
        (6, 3, 0),
        (1, 8, 10**6),
        (2, 9, 10**6),
        (1, 10, 1),
        (1, 6, 0),
    ):
        plan = net.plan.clone()
        plan[row, column] = value
        with pytest.raises(ValueError, match="plan: got"):
            DeviceNet(plan, *arrays)
    with pytest.raises(ValueError, match="got 4 channels, expected 3"):
        DeviceNet(net.plan, *arrays).run(sample(4, 4, 4, 1))
