"""What an accelerated layer reads off masks, permutations and networks, and keeps: it follows every change of these."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import normflows
import pytest
import torch
import zuko
from nflows import transforms
from nflows.nn.nets import ResidualNet
from torch import Tensor, nn
from zuko.flows import autoregressive, coupling

from hybridkern.integrations import accelerate
from hybridkern.integrations._seen import Seen

Build = Callable[[int], Any]


def _residual(inputs: int, outputs: int) -> nn.Module:
    return ResidualNet(inputs, outputs, 8)


def _nflows(which: int) -> nn.Module:
    masks = [1, 1, 0, 0], [0, 1, 1, 0]
    order = transforms.ReversePermutation(4) if which == 0 else transforms.RandomPermutation(4)
    return transforms.CompositeTransform([order, transforms.AffineCouplingTransform(masks[which], _residual)])


def _made(_: int) -> nn.Module:
    return transforms.MaskedAffineAutoregressiveTransform(4, 8, use_residual_blocks=False, random_mask=True)


def _masked(which: int) -> nn.Module:
    mask = torch.tensor([[1.0, 0, 1, 0], [0.0, 1, 1, 0]][which])
    return normflows.flows.MaskedAffineFlow(mask, *(normflows.nets.MLP([4, 8, 4]) for _ in range(2)))


def _spline(which: int) -> nn.Module:
    bound = torch.tensor([[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 3.0, 1.5]][which])
    tails = ["linear", "linear", "circular", "linear"]
    return normflows.flows.neural_spline.coupling.PiecewiseRationalQuadraticCoupling(
        torch.tensor([0, 0, 1, 1]), _residual, num_bins=4, tails=tails, tail_bound=bound
    )


def _zuko_coupling(which: int) -> nn.Module:
    mask = torch.tensor([[True, True, False, False], [False, True, True, False]][which])
    return coupling.GeneralCouplingTransform(4, mask=mask, hidden_features=[8])


def _zuko_masked(which: int) -> nn.Module:
    order = torch.tensor([[0, 1, 2, 3], [2, 3, 1, 0]][which])
    return autoregressive.MaskedAutoregressiveTransform(4, order=order, hidden_features=[64, 64])


BUILDS: dict[str, Build] = {
    "nflows": _nflows,
    "made": _made,
    "masked": _masked,
    "spline": _spline,
    "zuko coupling": _zuko_coupling,
    "zuko masked": _zuko_masked,
}


def _calls(layer: Any, x: Tensor) -> list[Tensor]:
    """Both directions, with log-determinants."""
    if isinstance(layer, zuko.lazy.LazyTransform):
        return [*layer().call_and_ladj(x), *layer().inv.call_and_ladj(x)]
    return [*layer(x), *layer.inverse(x)]


def _two(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    ours, other = (BUILDS[name](which).double() for which in range(2))
    accelerate(ours, networks=True)
    return ours, other


def _x() -> Tensor:
    return torch.linspace(-0.9, 0.9, 20, dtype=torch.float64).reshape(5, 4)


def _tensors(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(), *layer.buffers()]


def _agree(ours: Any, theirs: Any) -> None:
    with torch.no_grad():
        for a, b in zip(_calls(ours, _x()), _calls(theirs, _x()), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", BUILDS)
def test_written_without_a_trace(name: str) -> None:
    """Averaged and synchronized models are written through ``.data``, which gives a tensor no new version."""
    ours, other = _two(name)
    with torch.no_grad():
        before = _calls(ours, _x())
    for mine, given in zip(_tensors(ours), _tensors(other), strict=True):
        mine.data.copy_(given.data)
    _agree(ours, other)
    with torch.no_grad():
        assert not any(torch.equal(a, b) for a, b in zip(before, _calls(ours, _x()), strict=True))


@pytest.mark.parametrize("name", BUILDS)
def test_copies_loaded(name: str) -> None:
    """A copied tensor begins to count its versions anew, so that they meet those of before."""
    ours, other = _two(name)
    for _ in range(3):
        ours.load_state_dict(ours.state_dict())
        with torch.no_grad():
            _calls(ours, _x())
        copied = copy.deepcopy(ours)
        for mine, given in zip(_tensors(copied), _tensors(other), strict=True):
            mine.detach().copy_(given.detach())
        _agree(copied, other)


@pytest.mark.parametrize("name", BUILDS)
def test_copied_after_a_transform(name: str) -> None:
    """What was read off inside of ``torch.func.grad`` stands in wrappers of that."""
    ours, _ = _two(name)
    torch.func.grad(lambda x: torch.stack([value.sum() for value in _calls(ours, x)]).sum())(_x())
    _agree(copy.deepcopy(ours), ours)


def test_written_in_inference_mode() -> None:
    with torch.inference_mode():
        ours, other = _two("nflows")
        _calls(ours, _x())
        ours.load_state_dict(other.state_dict())
        _agree(ours, other)


@pytest.mark.parametrize("library", ["nflows", "normflows"])
def test_width_after_an_inverse(library: str) -> None:
    """Columns too many are no longer left out, once a network is known."""
    kind: Any = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    if library == "normflows":
        kind = normflows.flows.neural_spline.autoregressive.MaskedPiecewiseRationalQuadraticAutoregressive
    layer = kind(4, 8, num_bins=4, tails="linear", tail_bound=3.0)
    accelerate(layer, networks=True)
    layer.inverse(torch.zeros(3, 4))
    for width in (2, 6):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            layer.inverse(torch.zeros(3, width))


def test_keywords_of_a_univariate_map() -> None:
    univariate = partial(zuko.transforms.MonotonicRQSTransform, bound=3.0)
    theirs = autoregressive.MaskedAutoregressiveTransform(
        4, univariate=univariate, shapes=[(8,), (8,), (7,)], hidden_features=[8]
    ).double()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    x = 6 * _x()
    before = ours()(x)
    for layer in (theirs, ours):
        layer.univariate.keywords["bound"] = 6.0
    torch.testing.assert_close(ours()(x), theirs()(x))
    assert not torch.equal(ours()(x), before)


def _halves(x: Tensor) -> Tensor:
    return x.mul_(0.5)


@pytest.mark.parametrize("mask", [[1, 1, 0, 0], [1, 0, 1, 0]])
@pytest.mark.parametrize("edit", ["layer", "hook"])
def test_networks_that_come_to_write(mask: list[int], edit: str) -> None:
    """A layer inside a network is exchanged, or watched, and writes into what it is given: never into the data."""
    theirs = transforms.AffineCouplingTransform(mask, _residual).double()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    found = []
    for layer in (theirs, ours):
        layer(_x())
        first = layer.transform_net.initial_layer
        if edit == "layer":
            layer.transform_net.initial_layer = nn.Sequential(nn.ReLU(inplace=True), first)
        else:
            first.register_forward_pre_hook(lambda _, args: (_halves(args[0]),))
        x = _x().requires_grad_()
        y, log_det = layer(x)
        found.append((y, log_det, *torch.autograd.grad(y.square().sum() + log_det.sum(), x)))
        assert torch.equal(x, _x())
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a)


@pytest.mark.parametrize("to_data", [False, True])
def test_a_mask_of_fractions_compiled(to_data: bool) -> None:
    """A graph cannot look at a mask, which may be loaded after it was made."""
    theirs = _masked(0).double()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    compiled = torch.compile(ours if to_data else ours.inverse, backend="aot_eager", fullgraph=True)
    for mask in ([1.0, 0, 1, 0], [0.5, 0, 0.25, 1]):
        for layer in (theirs, ours):
            layer.b.copy_(torch.tensor(mask))
        for a, b in zip(compiled(_x()), theirs(_x()) if to_data else theirs.inverse(_x()), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int64])
@pytest.mark.parametrize("size", [3, 65, 72, 200])
def test_seen(dtype: torch.dtype, size: int) -> None:
    """Small and large tensors, contiguous or not, at any place in memory."""
    base = torch.zeros(size, size + 1, dtype=dtype)
    for value in (base, base.T, base[:, 1:], base.view(-1)[1:]):
        seen = Seen((value,))
        assert seen.holds((value,)) and seen.holds((value.clone(),)) and copy.deepcopy(seen).holds((value,))
        assert not seen.holds(()) and not seen.holds((value.unsqueeze(0),)) and not seen.holds((value.double(),))
        last = (-1,) * value.ndim
        value.data[last] = 1
        assert not seen.holds((value,))
        value.data[last] = 0


def test_seen_where_values_cannot_be_read() -> None:
    """The same tensor of the same version; a copy of what was seen knows no tensor."""
    value = torch.zeros(4, device="meta")
    seen = Seen((value,))
    assert seen.holds((value,)) and not seen.holds((value.clone(),)) and not copy.deepcopy(seen).holds((value,))
    value.add_(1)
    assert not seen.holds((value,))


def test_what_was_seen_keeps_its_memory() -> None:
    """Another thread may exchange a tensor's storage between the look at where it lies and that at its numbers."""
    value = torch.zeros(64)
    seen, storage = Seen((value,)), weakref.ref(value.untyped_storage())
    value.data = torch.ones(64)
    assert storage() is not None and not seen.holds((value,))
    del seen
    assert storage() is None
