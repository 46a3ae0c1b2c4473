"""Images to bytes and back, by an integer flow."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern.codec import coder, container
from hybridkern.codec.container import DamagedError, Header, OtherModelError
from hybridkern.codec.reference import Parameters
from hybridkern.codec.scheme import FloatScheme, Scheme, array, by_slice
from hybridkern.flows import IDF
from hybridkern.hybrid import HybridModel

_BATCH = 64  # images coded side by side
_LIMIT = 1 << 31  # of pixels and latents


def as_flow(model: object) -> IDF:
    """The integer flow on images that ``model`` is or holds.

    Raises:
        TypeError, ValueError: there is none.
    """
    flow = model.flow if isinstance(model, HybridModel) else model
    expected = "an IDF on images, a HybridModel on one, or what codec.quantize made of them"
    if not isinstance(flow, IDF):
        raise TypeError(f"model: got {short(model)}, expected {expected}")
    if len(flow.shape) != 3:
        raise ValueError(f"model: got an IDF on vectors of {flow.dim} dimensions, expected {expected}")
    return flow


def as_images(images: object, shape: tuple[int, ...]) -> Tensor:
    """``images`` as an int64 tensor ``(N, C, h, w)`` on the CPU, ``h`` and ``w`` at most those of ``shape``.

    Raises:
        TypeError: no tensor or array of integers.
        ValueError: another shape, a masked value, or one beyond 32 bits.
    """
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):  # its values are still there, below the mask
        raise ValueError(f"images: got {int(np.ma.getmaskarray(images).sum())} masked values, expected none")
    if isinstance(images, np.ndarray) and images.dtype.kind in "iu":
        unsigned = images.dtype.kind == "u"
        images = torch.from_numpy(images.astype(np.int64))  # torch has not all of its types
    else:
        unsigned = isinstance(images, Tensor) and images.dtype is torch.uint64
    if not isinstance(images, Tensor):
        raise TypeError(f"images: got {short(images)}, expected a tensor or an array of integers (N, C, H, W)")
    if images.is_floating_point() or images.is_complex() or images.dtype is torch.bool:
        raise TypeError(f"images: got dtype {images.dtype}, expected an integer dtype")
    if images.ndim != 4 or not is_within(tuple(images.shape[1:]), shape):
        expected = "(N, " + ", ".join(map(str, shape)) + "), or fewer rows or columns"
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected {expected}")
    images = images.detach().to("cpu", torch.int64)
    least = 0 if unsigned else -_LIMIT  # what 64 bits without a sign hold beyond 63 comes out negative
    if images.numel() and (images.min() < least or images.max() >= _LIMIT):
        raise ValueError("images: got a value beyond 32 bits, expected integers from -2**31 to 2**31 - 1")
    return images


def is_within(size: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether images of a size ``(C, h, w)`` have the channels, and at most the sides, of ``shape``."""
    return size[0] == shape[0] and all(1 <= own <= most for own, most in zip(size[1:], shape[1:], strict=True))


def enlarged(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images ``(N, C, h, w)`` as large as ``shape``, their last row and column repeated."""
    rows, columns = (torch.arange(most).clamp(max=own - 1) for own, most in zip(x.shape[2:], shape[1:], strict=True))
    return x if tuple(x.shape[1:]) == shape else x[:, :, rows[:, None], columns]


class Codec:
    """Lossless compression of images of one shape by an integer flow.

    Every image becomes a stream of its own, whose length is its negative log-probability under the model, within
    0.01 bits per dimension where values lie within 2048 of their means, as those of 8 bits do; its checksum and framing
    take about 6 bytes more. An image that would become longer than its raw values is stored raw. Probabilities are read
    from integer tables (:mod:`hybridkern.codec.reference`), and a checksum of the decoded values makes a wrong image an
    error. Images with fewer rows or columns than the model's are padded by repeating the last ones, and cropped when
    they are decoded.

    A quantized model (:func:`quantize`) is computed in integers only: its bytes decode to the same images on every
    machine. A model in float64 is evaluated one image at a time, so batches do not matter, and each image is decoded
    before its bytes are returned. Another processor, or another version of torch, may round a sum differently; then the
    image does not decode there, and its checksum makes that an error.

    Args:
        model: an ``IDF`` on images, a ``HybridModel`` on one, or what :func:`quantize` made of either. It is copied.

    Raises:
        TypeError, ValueError: another model.

    >>> import torch
    >>> from hybridkern import codec, flows
    >>> flow = flows.IDF((1, 8, 8), layers=1, hidden=8, center=8, scale=8)
    >>> images = torch.randint(0, 17, (3, 1, 8, 8))
    >>> data = codec.Codec(flow).encode(images)
    >>> torch.equal(codec.Codec(flow).decode(data), images)
    True
    """

    def __init__(self, model: nn.Module | Scheme) -> None:
        # the fingerprint is that of today: were the model trained on or loaded anew, it would tell of another one
        self._scheme = copy.deepcopy(model) if isinstance(model, Scheme) else FloatScheme(as_flow(model))
        self._fingerprint = self._scheme.fingerprint()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an image."""
        return self._scheme.shape

    @property
    def integers(self) -> bool:
        """Whether the model is computed in integers alone."""
        return self._scheme.integers

    @property
    def fingerprint(self) -> bytes:
        """16 bytes by which compressed data know the model they need."""
        return self._fingerprint

    def encode(self, images: Tensor | np.ndarray) -> bytes:
        """Images -> bytes, the same for a batch as for its images one by one but for the header.

        Args:
            images: integers ``(N, C, h, w)``, a tensor of any integer dtype or an array; ``h`` and ``w`` at most
                those of :attr:`shape`.

        Raises:
            TypeError, ValueError: other images.
        """
        x = as_images(images, self.shape)
        payloads: list[bytes] = []
        raw: list[bool] = []
        for batch in x.split(_BATCH) if len(x) else ():
            plain = [container.raw_payload(image) for image in batch.numpy()]
            coded = self._coded(enlarged(batch, self.shape))
            for stream, values in zip(coded, plain, strict=True):
                raw.append(stream is None or len(stream) >= len(values))
                payloads.append(values if stream is None or raw[-1] else stream)
        c, h, w = x.shape[1:]
        header = Header(self.integers, self.fingerprint, (c, h, w), [len(p) for p in payloads], raw)
        return container.pack(header, payloads, self.shape)

    def decode(self, data: bytes) -> Tensor:
        """What :meth:`encode` was given, int64 ``(N, C, h, w)``.

        Raises:
            TypeError: no bytes.
            DamagedError: damaged, truncated or other data; a ``ValueError``.
            OtherModelError: another model compressed them; a ``ValueError``.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: got {short(data)}, expected bytes")
        header, payloads = container.unpack(bytes(data), self.shape)
        self._check(header)
        found = [torch.empty(0, *header.shape, dtype=torch.int64)]
        for begin in range(0, len(payloads), _BATCH):
            part = slice(begin, begin + _BATCH)
            batch = self._decoded(payloads[part], header.raw[part], header.shape)
            for i, image in enumerate(batch, begin):
                if image is None:
                    raise DamagedError(f"data: image {i} is damaged, or was made by another machine in float64")
            found.append(torch.from_numpy(np.stack([image for image in batch if image is not None])))
        return torch.cat(found)

    def _check(self, header: Header) -> None:
        if header.integers != self.integers or not self.fingerprint.startswith(header.fingerprint):
            made = header.fingerprint.hex()
            raise OtherModelError(
                f"data: got fingerprint {made} for images {header.shape}, expected {self.fingerprint.hex()} for "
                f"{self.shape}: another model compressed them, or they are damaged"
            )
        if not is_within(header.shape, self.shape):
            raise DamagedError(f"data: got images {header.shape}, expected at most {self.shape}, those of the model")

    def _parameters(self, i: int, known: list[Tensor]) -> Parameters:
        return self._scheme.parameters_of(i, known)

    def _coded(self, x: Tensor) -> list[bytes | None]:
        """A stream an image; ``None`` where the model cannot code it."""
        z = self._scheme.latents(x)
        fits = ((z >= -_LIMIT) & (z < _LIMIT)).all(1)
        z = torch.where(fits[:, None], z, 0)
        latents = by_slice(z, self._scheme.shapes)
        parts, symbols = [], []
        for i in reversed(range(len(latents))):
            found = self._parameters(i, latents[i + 1 :])
            parts.append(Parameters(*(np.broadcast_to(p, (len(x), *p.shape[1:])) for p in found)))
            symbols.append(array(_flat(latents[i])).astype(np.int32))
        joined = Parameters(*(np.concatenate(tables, 2) for tables in zip(*parts, strict=True)))
        seeds = np.array([container.checksum(image) for image in x.numpy()], np.uint32)
        streams: list[bytes | None] = list(coder.encode(np.concatenate(symbols, 1), seeds, joined))
        streams = [stream if fit else None for stream, fit in zip(streams, fits.tolist(), strict=True)]
        return streams if self.integers else self._verified(x, streams)

    def _verified(self, x: Tensor, streams: list[bytes | None]) -> list[bytes | None]:
        """What does not decode here and now is stored raw."""
        again = self._decoded([stream or b"" for stream in streams], [False] * len(streams), self.shape)
        return [
            stream if image is not None and np.array_equal(image, wanted) else None
            for stream, image, wanted in zip(streams, again, x.numpy(), strict=True)
        ]

    def _decoded(self, payloads: list[bytes], raw: list[bool], size: tuple[int, int, int]) -> list[np.ndarray | None]:
        """The image ``(C, h, w)`` of each payload; ``None`` where it has none."""
        images: list[np.ndarray | None] = [
            container.read_raw(payload, size) if stored else None for payload, stored in zip(payloads, raw, strict=True)
        ]
        coded = [i for i, stored in enumerate(raw) if not stored]
        if coded:
            decoders = coder.Decoders([payloads[i] for i in coded])
            z = self._popped(decoders, len(coded))
            x = self._scheme.images(z)
            fits = ((x >= -_LIMIT) & (x < _LIMIT)).flatten(1).all(1).tolist()
            for i, image, seed, fit in zip(coded, x.numpy(), decoders.seeds(), fits, strict=True):
                images[i] = image[:, : size[1], : size[2]] if fit and seed == container.checksum(image) else None
        return images

    def _popped(self, decoders: coder.Decoders, count: int) -> Tensor:
        shapes = self._scheme.shapes
        latents: list[Tensor] = []
        flat: list[Tensor] = []
        for i in reversed(range(len(shapes))):
            parameters = self._parameters(i, latents)
            values = torch.from_numpy(decoders.pop(parameters).astype(np.int64))
            flat.insert(0, values.reshape(count, -1))
            latents.insert(0, by_slice(flat[0], [shapes[i]])[0])
        return torch.cat(flat, 1)


def _flat(latent: Tensor) -> Tensor:
    """One slice as joined latents have it."""
    return latent.permute(0, 2, 3, 1).flatten(1)
