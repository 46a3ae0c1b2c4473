"""Long checks of the codec, for a person to run: ``python -m tests.codec.checks same | damage``.

``same`` compares whatever computes streams: batches and single images, each instruction set, 1 and 2 threads, the
reference, and another process. ``damage`` decodes damaged and truncated data. The suite runs a small part of both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import hybridkern
from hybridkern import codec
from hybridkern.codec import container
from hybridkern.codec.codec import Codec
from tests.codec import cases

SHAPE = (1, 16, 16)
_BY_REFERENCE = 2  # images of a batch
_ONE_BY_ONE = 8


def model(seed: int = 0) -> codec.QuantizedIDF:
    """A small quantized flow with mixtures and residual networks."""
    flow = cases.flow(seed, SHAPE, prior="mixture", coupling="quarter", net="resnet", slices=3)
    return codec.quantize(flow, cases.images(seed + 3, 60, SHAPE))


def same(values: int, batch: int = 400, say: Callable[[str], None] = lambda text: None) -> tuple[int, int]:
    """Compares about so many values; returns how many were compared and how many differed.

    A value counts as different where the stream that holds it has other bytes, or decodes to another image.
    """
    quantized = model()
    compared = differences = 0
    for seed, x in _batches(batch):
        expected = Codec(quantized).encode(x)
        for found, of in _ways(quantized, x, expected, elsewhere=seed == 0):
            compared += of.numel()
            differences += sum(image.numel() for image, right in zip(of, found, strict=True) if not right)
        say(f"{compared} of {values} values compared, {differences} differ")
        if compared >= values:
            return compared, differences
    raise AssertionError("never reached")


def _batches(count: int) -> Iterator[tuple[int, torch.Tensor]]:
    for seed in range(10**6):
        x = cases.images(100 + seed, count, SHAPE)
        x[::7] += torch.randint(-40, 40, x[::7].shape, generator=torch.Generator().manual_seed(seed))  # escapes
        yield seed, x


def _ways(
    quantized: codec.QuantizedIDF, x: torch.Tensor, expected: bytes, elsewhere: bool
) -> Iterator[tuple[list[bool], torch.Tensor]]:
    """For each way to compute: which images it gives the expected streams of and gets back, and the images."""
    _, streams = container.unpack(expected, quantized.shape)
    for _ in cases.everywhere():
        yield _agrees(Codec(quantized), x, streams), x
    with hybridkern.use_backend("reference"):
        yield _agrees(Codec(quantized), x[:_BY_REFERENCE], streams[:_BY_REFERENCE]), x[:_BY_REFERENCE]
    alone = [_agrees(Codec(quantized), x[i : i + 1], streams[i : i + 1])[0] for i in range(_ONE_BY_ONE)]
    yield alone, x[:_ONE_BY_ONE]
    if elsewhere:
        yield _in_another_process(quantized, x, streams), x


def _agrees(one: Codec, x: torch.Tensor, streams: list[bytes]) -> list[bool]:
    data = one.encode(x)
    _, found = container.unpack(data, one.shape)
    back = one.decode(data)
    return [a == b and torch.equal(c, d) for a, b, c, d in zip(found, streams, back, x, strict=True)]


def _in_another_process(quantized: codec.QuantizedIDF, x: torch.Tensor, streams: list[bytes]) -> list[bool]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codec.save(quantized, folder / "model.npz")
        np.save(folder / "images.npy", x.numpy())
        subprocess.run([sys.executable, "-m", "tests.codec.checks", "encode", str(folder)], check=True)
        data = (folder / "streams").read_bytes()
    _, found = container.unpack(data, quantized.shape)
    back = Codec(quantized).decode(data)
    return [a == b and torch.equal(c, d) for a, b, c, d in zip(found, streams, back, x, strict=True)]


def _encode(folder: Path) -> None:
    images = np.load(folder / "images.npy")
    (folder / "streams").write_bytes(Codec(codec.load(folder / "model.npz")).encode(images))


def damage(count: int) -> tuple[int, list[str]]:
    """Decodes so many damaged batches and single images; returns how many, and what was wrong: one that decoded."""
    quantized = codec.quantize(cases.flow(prior="mixture"), cases.images(3, 60))
    one, x = Codec(quantized), cases.images(1, 3)
    x[2] = torch.randint(-(2**31), 2**31, x[2].shape, generator=torch.Generator().manual_seed(0))  # stored raw
    sound, rng, wrong = [(of, one.encode(of)) for of in (x, x[:1])], np.random.default_rng(0), []
    done = 0
    while done < count:
        of, data = sound[done // 6 % 2]
        damaged = _damaged(data, done % 6, rng)
        if damaged == data:
            continue
        done += 1
        try:
            back = one.decode(damaged)
        except (codec.DamagedError, codec.OtherModelError):
            continue
        wrong.append(f"{done}: decoded, to {'the same' if torch.equal(back, of) else 'OTHER'} images")
    return done, wrong


def _damaged(data: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """Cut short, a bit flipped, an end drawn anew, bytes cleared, several bytes changed, or bytes left out."""
    out = bytearray(data)
    at = int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        out[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        out[at:] = rng.integers(0, 256, int(rng.integers(1, 80)), dtype=np.uint8).tobytes()
    elif kind == 3:
        out[at : at + 8] = bytes(len(out[at : at + 8]))
    elif kind == 4:
        for place in rng.integers(0, len(data), 5):
            out[place] ^= int(rng.integers(1, 256))
    else:
        del out[at : at + int(rng.integers(1, 5))]
    return bytes(out)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.codec.checks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("same").add_argument("--values", type=int, default=10**7)
    commands.add_parser("damage").add_argument("--count", type=int, default=10_000)
    commands.add_parser("encode", help="used by the other process").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "encode":
        _encode(options.folder)
        return 0
    if options.command == "same":
        compared, differences = same(options.values, say=lambda text: print(text, flush=True))
        print(f"{compared} values compared, {differences} in streams or images that differ")
        return int(differences > 0)
    done, wrong = damage(options.count)
    print(f"{done} damaged batches and images, {len(wrong)} without an error", *wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
