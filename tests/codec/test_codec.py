"""Images to bytes and back."""

from __future__ import annotations

import copy
import io
import zlib

import numpy as np
import pytest
import torch

import hybridkern
from hybridkern import codec, flows
from hybridkern.codec import container
from hybridkern.hybrid import HybridModel, heads
from tests.codec import cases

OPTIONS = {
    "logistic": {},
    "mixture": {"prior": "mixture", "components": 3},
    "quarter": {"prior": "mixture", "coupling": "quarter", "net": "resnet"},
    "slices": {"prior": "mixture", "coupling": "quarter", "net": "resnet", "slices": 3},
}


@pytest.fixture(scope="module")
def quantized() -> codec.QuantizedIDF:
    return codec.quantize(cases.flow(), cases.images(3, 60))


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 4)])
def test_round_trip(shape: tuple[int, int, int], options: dict, integers: bool) -> None:
    model = cases.flow(shape=shape, **options)
    if integers:
        model = codec.quantize(model, cases.images(4, 20, shape))
    x = cases.images(5, 5, shape)
    data = codec.Codec(model).encode(x)
    decoded = codec.Codec(model).decode(data)
    assert decoded.dtype == torch.int64 and torch.equal(decoded, x)


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
def test_batches_do_not_matter(integers: bool, quantized: codec.QuantizedIDF) -> None:
    one = codec.Codec(quantized if integers else cases.flow())
    x = cases.images(6, 9)
    _, payloads = container.unpack(one.encode(x), one.shape)
    for image, payload in zip(x, payloads, strict=True):
        alone = one.encode(image[None])
        assert alone == b"\x89HK" + bytes([4 + integers]) + one.fingerprint[:4] + payload
        assert torch.equal(one.decode(alone), image[None])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, "u2", ">i4"])
def test_dtypes(dtype: torch.dtype | str, quantized: codec.QuantizedIDF) -> None:
    one, x = codec.Codec(quantized), cases.images(7, 2)
    given = x.numpy().astype(dtype) if isinstance(dtype, str) else x.to(dtype)
    assert torch.equal(one.decode(one.encode(given)), x)


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
def test_images_unlike_any(integers: bool, quantized: codec.QuantizedIDF) -> None:
    """Noise, constants and extremes come back too, raw where they would be longer."""
    one = codec.Codec(quantized if integers else cases.flow())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-(2**31), 2**31, (1, 1, 8, 8), generator=generator)
    edges = torch.where(torch.rand(1, 1, 8, 8, generator=generator) < 0.5, -(2**31), 2**31 - 1)
    x = torch.cat([noise, edges, *(torch.full((1, 1, 8, 8), value) for value in (0, 255, 65535, -1, 2**31 - 1))])
    data = one.encode(x)
    assert torch.equal(one.decode(data), x)
    header, payloads = container.unpack(data, one.shape)
    assert header.raw[0] and all(len(payload) <= 1 + 4 * 64 + 4 for payload in payloads)


def test_bytes_are_the_log_probability() -> None:
    shape = (1, 16, 16)
    model = cases.flow(shape=shape, strength=0.02, prior="mixture")
    x = cases.images(8, 12, shape)
    header, _ = container.unpack(codec.Codec(model).encode(x), shape)
    with torch.no_grad():
        ideal = -model.double().log_prob(x.double()) / np.log(2)
    excess = 8 * torch.tensor(header.sizes) - 32 - ideal  # without the checksum
    assert not any(header.raw)
    assert (excess < 8 + 0.01 * 256).all() and -0.01 * 256 < excess.mean() < 4 + 0.01 * 256  # whole bytes


def test_framing_is_small(quantized: codec.QuantizedIDF) -> None:
    one = codec.Codec(quantized)
    data = one.encode(cases.images(9, 300))
    header, payloads = container.unpack(data, one.shape)
    assert len(data) - sum(map(len, payloads)) + 4 * 300 <= 12 * 300
    assert len(one.encode(cases.images(9, 0))) < 20
    (alone,) = container.unpack(one.encode(cases.images(9, 1)), one.shape)[1]
    assert len(one.encode(cases.images(9, 1))) - len(alone) + 4 <= 12
    assert one.decode(one.encode(cases.images(9, 0))).shape == (0, 1, 8, 8)
    assert header.integers


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
def test_bytes_of_the_first_version_are_read(integers: bool, quantized: codec.QuantizedIDF) -> None:
    one, x = codec.Codec(quantized if integers else cases.flow()), cases.images(18, 2)
    now = one.encode(x)
    payloads = b"".join(container.unpack(now, one.shape)[1])
    head = b"\x89HKC\r\n\x1a\n\x01" + bytes([integers]) + one.fingerprint + now[8 : -len(payloads) - 4]
    data = head + zlib.crc32(head).to_bytes(4, "little") + payloads
    assert torch.equal(one.decode(data), x)
    with pytest.raises(codec.OtherModelError):
        codec.Codec(cases.flow(seed=9)).decode(data)
    for at in range(len(head)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(ValueError, match="data: got"):
            one.decode(bytes(damaged))


def test_hybrid_model() -> None:
    flow = cases.flow()
    model, x = HybridModel(flow, heads.Categorical(64, classes=3)), cases.images(10, 4)
    assert codec.Codec(model).encode(x) == codec.Codec(flow).encode(x)
    assert codec.quantize(model, x).fingerprint() == codec.quantize(flow, x).fingerprint()


def test_copies_code_alike(quantized: codec.QuantizedIDF) -> None:
    x, file = cases.images(15, 2), io.BytesIO()
    data = codec.Codec(quantized).encode(x)  # builds the compiled networks
    torch.save(quantized, file)
    file.seek(0)
    for same in (copy.deepcopy(quantized), torch.load(file, weights_only=False)):
        assert torch.equal(codec.Codec(same).decode(data), x)


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
def test_what_becomes_of_the_model_does_not_matter(integers: bool, quantized: codec.QuantizedIDF) -> None:
    given, x = (quantized if integers else cases.flow()), cases.images(17, 3)
    model = copy.deepcopy(given)
    one = codec.Codec(model)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.dtype in (torch.int8, torch.float32):
                value.neg_()
    data = one.encode(x)
    assert torch.equal(codec.Codec(given).decode(data), x)
    with pytest.raises(codec.OtherModelError):
        codec.Codec(model).decode(data)


def test_another_model_is_refused(quantized: codec.QuantizedIDF) -> None:
    flow, x = cases.flow(), cases.images(11, 2)
    other = cases.flow()
    with torch.no_grad():
        other.base.marginal.mean[0] += 1e-3
    codecs = [codec.Codec(m) for m in (flow, other, quantized, cases.flow(shape=(1, 16, 16)))]
    assert len({one.fingerprint for one in codecs}) == 4
    data = codecs[0].encode(x)
    for one in codecs[1:]:
        with pytest.raises(codec.OtherModelError, match="fingerprint"):
            one.decode(data)
    assert torch.equal(codec.Codec(cases.flow()).decode(data), x)


@pytest.mark.parametrize("integers", [False, True], ids=["float64", "integers"])
@pytest.mark.parametrize("size", [(8, 7), (3, 8), (1, 1)])
def test_smaller_images(size: tuple[int, int], integers: bool, quantized: codec.QuantizedIDF) -> None:
    """Coded as images of the model's shape, or raw, and cut again."""
    one = codec.Codec(quantized if integers else cases.flow())
    x = cases.images(16, 5)[:, :, : size[0], : size[1]]
    x[3] = torch.randint(-(2**31), 2**31, x[3].shape, generator=torch.Generator().manual_seed(2))
    data = one.encode(x)
    assert torch.equal(one.decode(data), x)
    assert torch.equal(one.decode(one.encode(x[:1])), x[:1])
    header, payloads = container.unpack(data, one.shape)
    assert header.shape == (1, *size) and header.raw[3] and len(payloads[3]) == 1 + 4 * size[0] * size[1] + 4
    whole = torch.cat([x, x[:, :, -1:].expand(-1, -1, 8 - size[0], -1)], 2)
    whole = torch.cat([whole, whole[..., -1:].expand(-1, -1, -1, 8 - size[1])], 3)
    if not header.raw[0]:
        assert container.unpack(one.encode(whole), one.shape)[1][0] == payloads[0]


def test_damaged_single_images(quantized: codec.QuantizedIDF) -> None:
    """Their headers have no checksum: damage makes them another model's or format's, or the stream's own finds it."""
    one = codec.Codec(quantized)
    data = one.encode(cases.images(9, 1))
    for at in range(len(data)):
        with pytest.raises((codec.DamagedError, codec.OtherModelError), match=r"damaged|89 48 4B"):
            one.decode(data[:at])
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises((codec.DamagedError, codec.OtherModelError), match=r"damaged|89 48 4B"):
                one.decode(bytes(damaged))


def test_headers_of_larger_images_are_refused(quantized: codec.QuantizedIDF) -> None:
    one = codec.Codec(quantized)
    header, payloads = container.unpack(one.encode(cases.images(17, 2)), one.shape)
    for shape in ((1, 9, 8), (1, 8, 0), (2, 8, 8)):
        other = container.Header(**(vars(header) | {"shape": shape}))
        with pytest.raises(codec.DamagedError, match="expected at most"):
            one.decode(container.pack(other, payloads, one.shape))


def test_damaged_raw_images(quantized: codec.QuantizedIDF) -> None:
    one = codec.Codec(quantized)
    data = one.encode(torch.randint(-(2**31), 2**31, (1, 1, 8, 8), generator=torch.Generator().manual_seed(1)))
    header, (payload,) = container.unpack(data, one.shape)
    assert header.raw == [True]
    for i in range(len(payload)):
        damaged = bytearray(data)
        damaged[len(data) - len(payload) + i] ^= 1 << i % 8
        with pytest.raises(codec.DamagedError, match="image 0"):
            one.decode(bytes(damaged))


def test_other_integers_are_noticed(quantized: codec.QuantizedIDF) -> None:
    """Where the fingerprint is forged, the checksum of each image tells."""
    other = codec.Codec(codec.quantize(cases.flow(seed=9), cases.images(3, 60)))
    header, payloads = container.unpack(codec.Codec(quantized).encode(cases.images(13, 2)), other.shape)
    forged = container.pack(
        container.Header(**(vars(header) | {"fingerprint": other.fingerprint})), payloads, other.shape
    )
    with pytest.raises(codec.DamagedError, match="image 0"):
        other.decode(forged)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 1, 8, 8), TypeError, "integer dtype"),
        (np.zeros((2, 1, 8, 8)), TypeError, "expected a tensor or an array of integers"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), TypeError, "integer dtype"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), ValueError, r"expected \(N, 1, 8, 8\)"),
        (torch.zeros(1, 1, 9, 8, dtype=torch.int64), ValueError, "fewer rows or columns"),
        (torch.zeros(1, 1, 0, 8, dtype=torch.int64), ValueError, "fewer rows or columns"),
        (torch.full((1, 1, 8, 8), 2**31), ValueError, "beyond 32 bits"),
        (np.ma.masked_equal(np.eye(8, dtype=np.int64)[None, None], 1), ValueError, "images: got 8 masked values"),
        (np.full((1, 1, 8, 8), 2**64 - 1, np.uint64), ValueError, "beyond 32 bits"),  # -1 as a number with a sign
        (torch.from_numpy(np.full((1, 1, 8, 8), 2**64 - 1, np.uint64)), ValueError, "beyond 32 bits"),
        ("images", TypeError, "images"),
    ],
)
def test_refused_images(images: object, error: type, message: str, quantized: codec.QuantizedIDF) -> None:
    with pytest.raises(error, match=message):
        codec.Codec(quantized).encode(images)


def test_refused_models() -> None:
    for model in (flows.IDF(4), flows.Glow((1, 8, 8), levels=1, steps=1, hidden=4), 3):
        with pytest.raises((TypeError, ValueError), match="model: got"):
            codec.Codec(model)
    with pytest.raises(TypeError, match="data: got"):
        codec.Codec(cases.flow()).decode("text")


def test_reference_gives_the_same_bytes(quantized: codec.QuantizedIDF) -> None:
    x = cases.images(15, 2)
    data = codec.Codec(quantized).encode(x)
    with hybridkern.use_backend("reference"):
        assert codec.Codec(quantized).encode(x) == data
        assert torch.equal(codec.Codec(quantized).decode(data), x)
