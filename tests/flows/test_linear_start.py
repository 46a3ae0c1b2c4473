"""Networks of integer flows on images start at the best linear prediction; the oracle is NumPy's least squares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.codec import learn_steps
from hybridkern.nets import ConvNet, DenseNet, ResNet, Scaled
from hybridkern.nets.prediction import start_at_prediction
from hybridkern.transforms import squeeze

NETS: dict[str, Callable[[int, int], nn.Module]] = {
    "conv": lambda i, o: ConvNet(i, o, hidden=12),
    "resnet": lambda i, o: ResNet(i, o, hidden=12, blocks=2),
    "densenet": lambda i, o: DenseNet(i, o, hidden=6, layers=2),
    "groupnorm": lambda i, o: DenseNet(i, o, hidden=6, layers=2, norm=True),
}
nets = pytest.mark.parametrize("name", NETS)


def _sample(n: int = 30, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 3 + 2 * torch.randn(n, 2, 5, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, weight, torch.tensor([1.0, -2, 0, 5], dtype=torch.float64), padding=1)
    return x, y + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)


def _neighborhoods(x: Tensor, side: int = 3) -> np.ndarray:
    """A row a pixel: its neighborhood, zeros beyond the edge, and 1."""
    reach = side // 2
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    _, _, h, w = x.shape
    shifted = [padded[:, :, i : i + h, j : j + w] for i in range(side) for j in range(side)]
    rows = np.stack(shifted, 2).transpose(0, 3, 4, 1, 2).reshape(-1, x.shape[1] * side**2)
    return np.concatenate([rows, np.ones((len(rows), 1))], 1)


def _best(x: Tensor, y: Tensor, side: int = 3) -> np.ndarray:
    seen, wanted = _neighborhoods(x, side), y.numpy().transpose(0, 2, 3, 1).reshape(-1, y.shape[1])
    fitted = seen @ np.linalg.lstsq(seen, wanted, rcond=None)[0]
    return fitted.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2)


@nets
def test_a_network_starts_at_the_least_squares(name: str) -> None:
    """Some of its outputs, by a factor; the others stay zero, and it has gradients everywhere but there."""
    torch.manual_seed(0)
    x, y = _sample()
    net = NETS[name](2, 7).double()
    start_at_prediction(net, x, y, 7, [torch.tensor([6, 0, 2, 3])], -2.0)
    out = net(x).detach().numpy()
    np.testing.assert_allclose(out[:, [6, 0, 2, 3]], -2 * _best(x, y), rtol=0, atol=5e-4)
    assert np.abs(out[:, [1, 4, 5]]).max() < 1e-7
    net(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_scaled_network_sees_and_predicts_distances_from_the_center() -> None:
    x, y = _sample()
    net = Scaled(NETS["resnet"](2, 4).double(), 3.0, 2.0)
    start_at_prediction(net, x, y, 4, [torch.arange(4)])
    np.testing.assert_allclose(net(x).detach().numpy() + 3, 3 + _best(x - 3, y - 3), rtol=0, atol=5e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_with_less_room_it_is_the_best_map_of_that_rank(rank: int) -> None:
    """Izenman 1975: the error is that of least squares and the least eigenvalues of what they explain."""
    x, y = _sample()
    net = ResNet(2, 4, hidden=2 * rank + 1, blocks=1).double()
    start_at_prediction(net, x, y, 4, [torch.arange(4)])
    best = _best(x, y)
    flat = best.transpose(0, 2, 3, 1).reshape(-1, 4)
    left = np.linalg.eigvalsh(np.cov(flat.T, bias=True))[: 4 - rank].sum()
    wanted = ((y.numpy() - best) ** 2).sum(1).mean() + left
    assert ((y - net(x)).square().sum(1).mean().item()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("n", "side"), [(2, 1), (1, 1), (6, 3)])
def test_few_pixels_fit_single_ones_alone(n: int, side: int) -> None:
    x, y = _sample(n)
    net = ResNet(2, 4, hidden=12, blocks=1).double()
    start_at_prediction(net, x, y, 4, [torch.arange(4)])
    np.testing.assert_allclose(net(x).detach().numpy(), _best(x, y, side), rtol=0, atol=1e-4)


def test_fewer_fit_nothing() -> None:
    x, y = _sample(1)
    net = ResNet(2, 4, hidden=12, blocks=1).double()
    start_at_prediction(net, x[:, :, :1, :], y[:, :, :1, :], 4, [torch.arange(4)])
    assert not net(x).any()


def _learnt(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(m for m in reversed(list(net.modules())) if isinstance(m, nn.Conv2d)).bias[0] = 0.5
    return net


def _hooked(net: nn.Module) -> nn.Module:
    next(m for m in net.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda *_: None)
    return net


def _parametrized(net: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(next(m for m in net.modules() if isinstance(m, nn.Conv2d)))
    return net


@pytest.mark.parametrize("change", [_learnt, _hooked, _parametrized])
@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_a_network_that_learnt_or_does_more_stays(name: str, change: Callable[[nn.Module], nn.Module]) -> None:
    net = change(NETS[name](2, 4).double())
    before = [value.clone() for value in net.parameters()]
    start_at_prediction(net, *_sample(), 4, [torch.arange(4)])
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def _images(n: int = 60, channels: int = 3) -> Tensor:
    """Smooth ones, of two waves each, with a little noise."""
    generator = torch.Generator().manual_seed(2)
    phase, rate = (torch.rand(n, channels, 2, 1, 1, generator=generator) for _ in range(2))
    row, column = torch.arange(16.0)[:, None], torch.arange(16.0)
    waves = torch.sin(6.3 * phase[:, :, 0] + rate[:, :, 0] * row / 2) + torch.sin(6.3 * phase[:, :, 1] + column / 6)
    return (127.5 + 60 * waves + torch.randn(waves.shape, generator=generator)).round()


@pytest.mark.parametrize("prior", ["logistic", "mixture"])
@pytest.mark.parametrize(("net", "coupling"), [("resnet", "quarter"), ("densenet", "quarter"), ("conv", "parts")])
def test_a_flow_starts_where_training_would_need_long_to_come(prior: str, net: str, coupling: str) -> None:
    """Bits per dimension on other images: of the best linear predictions, far below those of single pixels."""
    torch.manual_seed(0)
    images, layers = _images(), 4 if coupling == "quarter" else 1
    options = {"layers": layers, "hidden": 48, "net": net, "coupling": coupling, "prior": prior, "levels": 2}
    flow = flows.IDF((3, 16, 16), center=127.5, scale=127.5, **options).eval()
    flow.base.marginal.initialize(flow(images[:50])[0])
    before = -flow.log_prob(images[50:]).mean().item() / (768 * np.log(2))
    flow.initialize(images[:50])
    after = -flow.log_prob(images[50:]).mean().item() / (768 * np.log(2))
    assert after < 5.0 < 6.5 < before
    assert torch.equal(flow.inverse(flow(images)[0])[0], images)
    assert flow.sample(2).isfinite().all()


def test_drawings_start_without_a_prediction() -> None:
    """Pixels that are mostly the same number: what is predicted of them would be another one each time."""
    generator = torch.Generator().manual_seed(5)
    images = 255.0 * (torch.rand(80, 1, 16, 16, generator=generator) < 0.04)
    options = {"layers": 4, "hidden": 24, "net": "resnet", "coupling": "quarter", "prior": "mixture"}
    torch.manual_seed(0)
    flow = flows.IDF((1, 16, 16), center=127.5, scale=127.5, **options)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.initialize(images)
    changed = {name for name, value in flow.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"base.marginal.mean", "base.marginal.log_scale"}
    flow.base.marginal.initialize(flow.eval()(images)[0])
    again = {name for name, value in flow.state_dict().items() if not torch.equal(value, before[name])}
    assert again == changed


def test_channels_that_go_on_are_not_predicted() -> None:
    """They are what the others, and the prior, are predicted from: the first level leaves them as they are."""
    images = _images()
    flow = flows.IDF(
        (3, 16, 16), layers=4, hidden=48, net="resnet", coupling="quarter", center=127.5, scale=127.5
    ).eval()
    flow.initialize(images)
    before = torch.cat(squeeze(images), 1)
    after = flow.couplings.levels[0](before)
    assert torch.equal(after[:, :6], before[:, :6])
    assert (after[:, 6:] - 127.5).std() < 0.3 * (before[:, 6:] - 127.5).std()


def test_a_second_start_changes_the_prior_alone() -> None:
    flow = flows.IDF((3, 16, 16), layers=2, hidden=16, net="resnet", coupling="quarter", levels=2)
    flow.initialize(_images())
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.initialize(_images().flip(3))
    changed = {name for name, value in flow.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"base.marginal.mean", "base.marginal.log_scale"}


def test_networks_that_will_learn_steps_start_too() -> None:
    made = []
    for quantized in (False, True):
        torch.manual_seed(0)
        flow = flows.IDF((3, 16, 16), layers=2, hidden=16, net="resnet", coupling="quarter", levels=2)
        if quantized:
            learn_steps(flow)
        flow.initialize(_images())
        made.append(flow.eval().log_prob(_images()))
    torch.testing.assert_close(*made, rtol=0, atol=0)


@pytest.mark.parametrize("layers", [1, 4, 6, 8])
def test_four_layers_in_a_row_shift_every_channel_once(layers: int) -> None:
    flow = flows.IDF((2, 8, 8), layers=layers, hidden=4, net="resnet", coupling="quarter", levels=2)
    for level in flow.couplings.levels:
        moved = [layer.permutation.order[layer.sizes[0] :] for layer in level]
        for i in range(0, layers, 4):
            channels = torch.cat(moved[i : i + 4])
            assert len(channels.unique()) == len(channels)
        for layer in level:
            assert torch.equal(layer.permutation.order.sort().values, torch.arange(sum(layer.sizes)))
