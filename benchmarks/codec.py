"""Coder and networks of the codec: ``python -m benchmarks.codec``, on one thread.

Of the coder alone, masses included, nanoseconds a symbol; of the networks of integers, microseconds an image. Processor
time, the least of many short rounds in which the instruction sets take turns, so that a busy machine matters little.
Symbols are drawn from their own distributions; means lie within 100 values, log-scales from -2 to 2, logits within 3,
as the first benchmarks of the coder had them. Networks are residual ones of two blocks, 9 channels in and 3 out, on
16 x 16 pixels.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from hybridkern import nets
from hybridkern._extension import extension
from hybridkern.codec import coder
from hybridkern.codec.convert import Converter
from hybridkern.codec.integers import IntegerNet
from hybridkern.codec.reference import Parameters

STREAMS, SIZE = 64, 784
IMAGES, WIDTHS = 32, (32, 48, 128)


def drawn(components: int, seed: int = 0) -> tuple[np.ndarray, Parameters]:
    """Symbols ``(STREAMS, SIZE)`` and their distributions."""
    rng = np.random.default_rng(seed)
    shape = (STREAMS, components, SIZE)
    of = Parameters(
        rng.integers(-24, 24, shape, dtype=np.int32),
        rng.integers(-50 * 64, 50 * 64, shape, dtype=np.int32),
        rng.integers(64, 128, shape, dtype=np.int32),
    )
    chosen = (rng.gumbel(size=shape) + of.logits / 16).argmax(1)[:, None]
    mean, scale = (np.take_along_axis(table, chosen, 1)[:, 0] for table in (of.means, of.scales))
    values = mean / 64 + np.exp(scale / 16 - 6) * rng.logistic(size=mean.shape)
    return np.rint(values).astype(np.int32), of


def nanoseconds(components: int, rounds: int) -> dict[str, tuple[float, float]]:
    """By instruction set, to encode and to decode a symbol."""
    values, of = drawn(components)
    seeds = np.arange(STREAMS, dtype=np.uint32)
    best: dict[str, tuple[float, float]] = {}
    before = extension.module.instruction_set()
    for _ in range(rounds):
        for level in ("baseline", "avx2", "avx512"):
            try:
                extension.module.set_instruction_set(level)
            except ValueError:
                continue
            begin = time.process_time()
            streams = coder.encode(values, seeds, of)
            middle = time.process_time()
            decoders = coder.Decoders(streams)
            found = decoders.pop(of)
            end = time.process_time()
            assert np.array_equal(found, values) and decoders.seeds() == seeds.tolist()
            encode, decode = best.get(level, (np.inf, np.inf))
            best[level] = min(encode, middle - begin), min(decode, end - middle)
    extension.module.set_instruction_set(before)
    return {level: (1e9 * a / values.size, 1e9 * b / values.size) for level, (a, b) in best.items()}


def network(width: int) -> tuple[IntegerNet, torch.Tensor]:
    """A network of integers, and what it sees."""
    torch.manual_seed(0)
    net, x = nets.ResNet(9, 3, width, blocks=2).double(), (128 + 40 * torch.randn(IMAGES, 9, 16, 16)).round().long()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return Converter(net, x, torch.full((3,), 40.0), 128.0, 60.0).convert(), x


def microseconds(width: int, rounds: int) -> dict[str, float]:
    """By the way products are computed, of an image."""
    net, x = network(width)
    expected, before = net.reference(x), extension.module.integer_products()
    best: dict[str, float] = {}
    for _ in range(rounds):
        for products in ("widened", "vnni", "amx"):
            try:
                extension.module.set_integer_products(products)
            except ValueError:
                continue
            found = net(x)  # packs the weights
            begin = time.process_time()
            net(x)
            best[products] = min(best.get(products, np.inf), time.process_time() - begin)
            assert torch.equal(found, expected)
    extension.module.set_integer_products(before)
    return {products: 1e6 * seconds / IMAGES for products, seconds in best.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'components':>10} {'set':>9} {'encode':>8} {'decode':>8}   ns a symbol")
    for components in (1, 2, 5, 10):
        for level, (encode, decode) in nanoseconds(components, rounds).items():
            print(f"{components:>10} {level:>9} {encode:>8.1f} {decode:>8.1f}")
    print(f"{'channels':>10} {'products':>9} {'time':>8}            us an image, networks of integers")
    for width in WIDTHS:
        for products, time_ in microseconds(width, rounds).items():
            print(f"{width:>10} {products:>9} {time_:>8.1f}")


if __name__ == "__main__":
    main()
