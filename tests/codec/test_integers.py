"""Networks of integers: one result, whatever computes it."""

from __future__ import annotations

import pytest
import torch

import hybridkern
from hybridkern import codec, nets
from hybridkern._extension import extension
from hybridkern.codec.convert import Converter
from hybridkern.codec.integers import IntegerNet
from tests.codec import cases

_C = extension.module
NETS = {
    "conv": lambda i, o: nets.ConvNet(i, o, 20),
    "resnet": lambda i, o: nets.ResNet(i, o, 36, blocks=2),
    "densenet": lambda i, o: nets.DenseNet(i, o, 20, layers=3),
    "wide": lambda i, o: nets.ConvNet(i, o, 130),
    "wide densenet": lambda i, o: nets.DenseNet(i, o, 130, layers=3),  # of whose rows most are zero
}


def made(
    name: str, inputs: int, outputs: int, x: torch.Tensor, factor: float = 40.0
) -> tuple[IntegerNet, torch.nn.Module]:
    torch.manual_seed(1)
    net = NETS[name](inputs, outputs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    factors = torch.full((outputs,), 40.0)
    return Converter(net.double(), x, factors, 100.5, 60.0).convert(), net


def sample(inputs: int, height: int, width: int, count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(count, inputs, height, width, generator=generator) * 50 + 100).round().long()


@pytest.mark.skipif(_C is None, reason="no compiled kernels")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(3, 5, 7, 6), (12, 4, 14, 14), (1, 70, 1, 1), (5, 17, 2, 9)])
def test_every_kernel_gives_the_same_integers(name: str, size: tuple[int, ...]) -> None:
    inputs, outputs, height, width = size
    x = sample(inputs, height, width)
    net, _ = made(name, inputs, outputs, x)
    x = torch.cat([x, torch.tensor([-(2**31), 2**31 - 1, 0]).view(3, 1, 1, 1).expand(3, *x.shape[1:])])
    ran = 0
    for tables in (net.tables, net.tables // 2 + 17):  # of a clamp, and any other
        net = IntegerNet(net.plan, net.weights, net.numbers, tables)
        expected = net.reference(x.clamp(-(2**30), 2**30))
        assert expected[:6].float().std() > 1
        for where in cases.everywhere():
            assert torch.equal(net(x), expected), where
            assert torch.equal(net(x[2:3]), expected[2:3]), where
            ran += 1
    assert ran >= 4


@pytest.mark.skipif(_C is None, reason="no compiled kernels")
@pytest.mark.parametrize("net", ["resnet", "densenet"])
def test_every_kernel_gives_the_same_bytes(net: str) -> None:
    model = codec.quantize(cases.flow(prior="mixture", coupling="quarter", net=net), cases.images(0, 40))
    assert model.bits["integers"] < model.bits["float"] + 0.08  # whole bytes of 64 values, too
    x = cases.images(1, 70)
    with hybridkern.use_backend("reference"):
        expected = codec.Codec(model).encode(x[:3])
    whole = None
    for where in cases.everywhere():
        found = codec.Codec(model).encode(x)
        whole = whole or found
        assert found == whole, where
        assert codec.Codec(model).encode(x[:3]) == expected, where
        assert torch.equal(codec.Codec(model).decode(found), x), where


@pytest.mark.parametrize("name", NETS)
def test_integers_stay_near_the_network(name: str) -> None:
    x = sample(6, 8, 8, 30)
    net, given = made(name, 6, 4, x)
    with torch.no_grad():
        wanted = 40 * given((x.double() - 100.5) / 60)
    error = (net(x) - wanted).double()
    assert error.std() < 0.05 * wanted.std() and error.mean().abs() < 0.02 * wanted.std()


# row, column and value of a plan of three layers; the least of 64 bits has no absolute value
WRONG_PLACES = (
    *((0, 0, -(2**63)), (0, 2, 0), (0, 2, 60), (0, 3, 256), (1, 0, 2**40), (1, 1, 0), (1, 2, 3), (1, 4, -(2**63))),
    *((1, 7, -1), (1, 8, 10**9), (1, 9, -1), (2, 3, 4), (2, 3, 2), (2, 10, 1), (3, 3, 0)),
)


@pytest.mark.parametrize("place", WRONG_PLACES, ids=str)
def test_plans_are_refused_whatever_computes(place: tuple[int, int, int]) -> None:
    """A kernel reads where the plan says: that of the reference, or of a GPU, is held to what the compiled one asks."""
    net, _ = made("conv", 3, 2, sample(3, 4, 4))
    net.plan[place[:2]] = place[2]
    with pytest.raises(ValueError, match=r"plan: got .*, expected"):
        net.check()
    for served in ("reference", "auto"):
        with hybridkern.use_backend(served), pytest.raises(ValueError, match="plan: "):
            net(sample(3, 4, 4))


def test_arrays_of_other_types_or_sizes_are_refused() -> None:
    for name, change, text in (
        ("tables", lambda v: v[:200], "plan: got tables from 0 on, expected 256 of the 200 there are"),
        ("tables", lambda v: v.float(), "tables: got torch.float32 of shape"),
        ("weights", lambda v: v[:-1], "plan: got weights from"),
        ("numbers", lambda v: v.index_fill(0, torch.tensor([0]), 2**31 - 1), "plan: got sums beyond 32 bits"),
        ("numbers", lambda v: v.index_fill(0, torch.tensor([len(v) - 1]), 0), "plan: got factor .* and shift 0"),
        ("plan", lambda v: v[:1], r"plan: got shape \(1, 11\), expected \(layers \+ 1, 11\)"),
    ):
        net, _ = made("conv", 3, 2, sample(3, 4, 4))
        setattr(net, name, change(getattr(net, name)))
        with hybridkern.use_backend("reference"), pytest.raises(ValueError, match=text):
            net(sample(3, 4, 4))
    net, _ = made("conv", 3, 2, sample(3, 4, 4))
    with hybridkern.use_backend("reference"), pytest.raises(ValueError, match=r"x: got shape \(1, 4, 4, 4\), expected"):
        net(sample(4, 4, 4, 1))


@pytest.mark.skipif(_C is None, reason="no compiled kernels")
def test_a_stream_that_is_shifted_beyond_32_bits_is_held() -> None:
    """As the reference has it: an index that came back with the other sign would be another activation."""
    x = sample(3, 6, 6)
    net, _ = made("resnet", 3, 2, x)
    for row in net.plan[1:-1]:
        if row[3] != 0:
            row[5], row[6] = 2**22 - 1, 1
    expected = net.reference(x)
    for where in cases.everywhere():
        assert torch.equal(net(x), expected), where


def test_plans_that_overflow_or_point_elsewhere_are_refused() -> None:
    net, _ = made("conv", 3, 2, sample(3, 4, 4))
    if _C is None:
        pytest.skip("no compiled kernels")
    arrays = [getattr(net, name).numpy() for name in ("plan", "weights", "numbers", "tables")]
    _C.IntegerNetwork(*arrays)
    for row, column, value in WRONG_PLACES:
        plan = arrays[0].copy()
        plan[row, column] = value
        with pytest.raises(ValueError, match="plan"):
            _C.IntegerNetwork(plan, *arrays[1:])
    numbers = arrays[2].copy()
    numbers[0] = 2**31 - 1
    with pytest.raises(ValueError, match="32 bits"):
        _C.IntegerNetwork(*arrays[:2], numbers, arrays[3])


def test_zero_networks_convert() -> None:
    """As they are before training."""
    x = sample(6, 4, 4)
    for build in NETS.values():
        found = Converter(build(6, 2).double(), x, torch.ones(2)).convert()(x)
        assert not found.any()


def test_another_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"DenseNet whose layers are normalized, expected one with norm=False"):
        codec.quantize(cases.flow(net="groupnorm-swish", hidden=12), cases.images(0, 4))
    flow = cases.flow()
    flow.base.nets[-1] = torch.nn.Identity()
    with pytest.raises(TypeError, match=r"Identity.*expected nets.ConvNet or nets.ResNet"):
        codec.quantize(flow, cases.images(0, 4))
