"""Squeeze, dequantization, mixing and image networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hybridkern import nets
from hybridkern.transforms import Mixing, dequantize, squeeze, unsqueeze


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 1, 2, 2), (0, 3, 4, 4), (2, 2, 6, 2)])
def test_squeeze(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    first, second = squeeze(x)
    for row, half in enumerate((first, second)):
        expected = torch.cat([x[:, :, row::2, 0::2], x[:, :, row::2, 1::2]], 1)
        assert torch.equal(half, expected)
        assert half.numel() == 0 or half.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(unsqueeze(first, second), x)
    strided = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert all(torch.equal(a, b) for a, b in zip(squeeze(strided), (first, second), strict=True))


def test_dequantize() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(200, 1)
    x = dequantize(images, generator=torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32 and x.min() >= -0.5 and x.max() < 0.5
    cells = (x.double() + 0.5) * 256 - images
    assert cells.min() >= 0 and cells.max() < 1
    assert abs(cells.mean().item() - 0.5) < 0.01 and abs(cells.var().item() - 1 / 12) < 0.002
    assert torch.equal(x, dequantize(images, generator=torch.Generator().manual_seed(0)))
    state = torch.get_rng_state()
    dequantize(images, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert dequantize(images.long() // 64, bits=2, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64, torch.float32, torch.float64])
def test_dequantize_16_bits(dtype: torch.dtype) -> None:
    images = torch.tensor([[0, 1, 300, 65534, 65535]]).to(dtype)
    for to in (torch.float32, torch.float64):
        x = dequantize(images, bits=16, dtype=to, generator=torch.Generator().manual_seed(0))
        cells = (x.double() + 0.5) * 65536 - images.double()
        assert x.dtype is to and cells.min() >= 0 and cells.max() < 1 and x.max() < 0.5


BYTES = torch.tensor([[0, 40, 255]], dtype=torch.uint8)
BAD_IMAGES = [
    (
        lambda: dequantize(BYTES / 255),
        ValueError,
        r"images: got the value 0.15\d+, expected integers from 0 to 255 .8 b",
    ),
    (lambda: dequantize(BYTES / 255), ValueError, r"images scaled to \[0, 1\] must be multiplied back"),
    (
        lambda: dequantize(BYTES, bits=5),
        ValueError,
        r"images: got the value 255, expected integers from 0 to 31 \(5 bits",
    ),
    (lambda: dequantize(BYTES.long() - 300), ValueError, "images: got the value -300, expected integers from 0 to 255"),
    (lambda: dequantize(BYTES.char(), bits=7), ValueError, "images: got the value -1, expected integers from 0 to 127"),
    (
        lambda: dequantize((BYTES.long() + 1).to(torch.uint16), bits=8),
        ValueError,
        "images: got the value 256, expected",
    ),
    (lambda: dequantize(BYTES * torch.nan), ValueError, "images: got the value nan, expected integers"),
    (lambda: dequantize(BYTES * torch.inf), ValueError, "images: got the value nan, expected integers"),
    (lambda: dequantize(BYTES.double() - torch.inf), ValueError, "images: got the value -inf, expected integers"),
    (lambda: dequantize(BYTES > 1), TypeError, "images: got dtype torch.bool, expected integers"),
    (lambda: dequantize([1]), TypeError, "images: got list"),
    (lambda: dequantize(BYTES, bits=17), ValueError, "bits: got 17, expected an integer from 1 to 16"),
    (lambda: dequantize(BYTES, bits=0), ValueError, "bits: got 0, expected an integer from 1 to 16"),
    (lambda: dequantize(BYTES, bits=8.0), TypeError, "bits: got 8.0, expected an integer from 1 to 16"),
    (lambda: dequantize(BYTES, dtype=torch.float16), TypeError, "dtype: got torch.float16, expected torch.float32 or"),
]


@pytest.mark.parametrize(("run", "error", "message"), BAD_IMAGES)
def test_dequantize_checks_its_images(run: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run()


def test_dequantize_takes_what_holds_no_values() -> None:
    assert dequantize(torch.zeros(0, 1, 4, 4, dtype=torch.uint8)).shape == (0, 1, 4, 4)
    assert dequantize(torch.zeros(2, 3, device="meta")).is_meta


@pytest.mark.parametrize("permutation", ["conv1x1", "shuffle", "reverse"])
def test_mixing(permutation: str) -> None:
    torch.manual_seed(0)
    mixing = Mixing(3, 6, permutation)
    weight, bias, log_det = mixing()
    torch.testing.assert_close(weight @ weight.mT, torch.eye(6).expand(3, 6, 6), rtol=0, atol=1e-5)
    assert not bias.any() and abs(log_det.item()) < 1e-5
    with torch.no_grad():
        for parameter in mixing.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    mixing.double()
    weight, bias, log_det = mixing()
    torch.testing.assert_close(torch.linalg.slogdet(weight).logabsdet.sum(), log_det)
    x = torch.randn(6, dtype=torch.float64)
    y = weight[1] @ x + bias[1]
    back = mixing(inverse=True)
    torch.testing.assert_close(back.weight[1] @ y + back.bias[1], x)
    torch.testing.assert_close(back.log_det, -log_det)
    if permutation == "reverse":
        scaled = (x + mixing.shift[1]) * mixing.log_scale[1].exp()
        torch.testing.assert_close(y, scaled.flip(0))


@pytest.mark.parametrize("build", [nets.ConvNet, nets.HighwayNet])
def test_image_networks(build: type) -> None:
    net = build(3, 5, hidden=7)
    x = torch.randn(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    y = net(x)
    assert y.shape == (2, 5, 5, 6) and y.abs().max() < 1e-6, "all but zero at the start"
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    net = build(3, 5, hidden=64)
    torch.nn.init.normal_((net.conv3 if isinstance(net, nets.ConvNet) else net.last).weight)
    (grad,) = torch.autograd.grad(net(x := x.requires_grad_())[0, 0, 2, 2], x)
    reach = grad[0].abs().sum(0) > 0
    assert reach[0:5, 0:5].all() and not reach[:, 5].any(), "two 3x3 convolutions reach two pixels far"
    for name in ("in_channels", "out_channels", "hidden"):
        with pytest.raises(ValueError, match=f"{name}: got 0, expected a positive integer"):
            build(**{"in_channels": 3, "out_channels": 5, "hidden": 7} | {name: 0})


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_dequantized_values_stay_in_their_cells(bits: int) -> None:
    """Rounded to float32, one in 100000 of 8 bits lay in the next one."""
    images = torch.full((400_000,), 2**bits - 2)
    x = dequantize(images, bits=bits, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(((x + 0.5) * 2**bits).floor().long(), images)
