"""Images there and back through the codec, with sizes and times; and sizes of the same images in other formats."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern.codec import Codec, container
from hybridkern.lab.compress.formats import encoders, strips
from hybridkern.lab.recipes.errors import RecipeError

STRIP = 100  # images per file


class Sizes(NamedTuple):
    """Bytes of all files: one file per image, and one for ``STRIP`` images."""

    single: int
    strips: int


@dataclass(frozen=True)
class Coded:
    """What became of images.

    Attributes:
        sizes: of whole files.
        streams: bytes of the images' own parts alone.
        decoded: as they came back, uint8 ``(N, C, H, W)``.
        encoding, decoding: seconds.
    """

    sizes: Sizes
    streams: int
    decoded: Tensor
    encoding: float
    decoding: float


def coded(codec: Codec, images: Tensor) -> Coded:
    """Images ``(N, C, H, W)``, uint8, there and back, ``STRIP`` per file.

    Raises:
        RecipeError: an image came back with other pixels.
    """
    single = in_strips = streams = 0
    encoding = decoding = 0.0
    decoded = []
    for part in images.split(STRIP):
        begin = time.perf_counter()
        data = codec.encode(part)
        middle = time.perf_counter()
        back = codec.decode(data)
        decoding += time.perf_counter() - middle
        encoding += middle - begin
        if not torch.equal(back, part.long()):
            raise RecipeError("an image came back with other pixels: this is a fault of the codec")
        decoded.append(back.to(torch.uint8))
        header, payloads = container.unpack(data, codec.shape)
        in_strips += len(data)
        streams += sum(header.sizes)
        single += sum(
            len(container.pack(replace(header, sizes=[len(one)], raw=[raw]), [one], codec.shape))
            for one, raw in zip(payloads, header.raw, strict=True)
        )
    return Coded(Sizes(single, in_strips), streams, torch.cat(decoded), encoding, decoding)


def in_other_formats(images: Tensor) -> dict[str, Sizes]:
    """Bytes of images ``(N, C, H, W)``, uint8, by the name of each format there is."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    together = strips(pixels, STRIP)
    return {
        name: Sizes(sum(len(encode(one)) for one in pixels), sum(len(encode(one)) for one in together))
        for name, encode in encoders().items()
    }
