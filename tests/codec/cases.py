"""Parameters and values for the tests of the coder, small flows that see their data, and every way to compute."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hybridkern import flows
from hybridkern._extension import extension
from hybridkern.codec.reference import Parameters
from hybridkern.transforms import QuarterCoupling


def parameters(seed: int, rows: int, components: int, size: int) -> Parameters:
    """Distributions of all widths, some of them sharper than the grid of means."""
    rng = np.random.default_rng(seed)
    shape = (rows, components, size)
    return Parameters(
        rng.integers(-60, 60, shape, dtype=np.int32),
        rng.integers(-300 * 64, 300 * 64, shape, dtype=np.int32),
        rng.integers(0, 256, shape, dtype=np.int32),
    )


def values(seed: int, rows: int, of: Parameters, far: float = 0.05) -> np.ndarray:
    """Values near a mean, and a share of them anywhere."""
    rng = np.random.default_rng(seed)
    means = np.broadcast_to(of.means[:, 0], (rows, of.means.shape[2])) // 64
    near = means + rng.integers(-20, 21, means.shape)
    anywhere = rng.integers(-(2**31), 2**31, means.shape) >> rng.integers(0, 31, means.shape)
    return np.where(rng.random(means.shape) < far, anywhere, near).astype(np.int32)


def flow(seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8), strength: float = 0.05, **options) -> flows.IDF:
    """A flow whose networks say something, as after training, for values from 0 to 16."""
    torch.manual_seed(seed)
    settings = {"layers": 2, "hidden": 12, "levels": 2, "center": 8, "scale": 8} | options
    made = flows.IDF(shape, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * strength)
        for module in made.modules():
            if isinstance(module, QuarterCoupling):
                module.beta.fill_(1.5)
    made.initialize(images(seed + 1, 50, shape))
    return made.eval()


def images(seed: int, count: int, shape: tuple[int, int, int] = (1, 8, 8)) -> torch.Tensor:
    """Smooth pictures of 17 grey levels."""
    generator = torch.Generator().manual_seed(seed)
    c, h, w = shape
    coarse = torch.rand(count, c, h // 4 + 1, w // 4 + 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bilinear")
    noise = torch.rand(count, c, h, w, generator=generator)
    return (smooth * 15 + noise).round().clamp(0, 16).long()


def everywhere() -> Iterator[str]:
    """Chooses one instruction set after the other, and 1 and 2 threads on each; then things are as they were."""
    compiled, threads = extension.module, torch.get_num_threads()
    if compiled is None:
        return
    before = compiled.instruction_set(), compiled.integer_products()
    try:
        for level in ("baseline", "avx2", "avx512"):
            for products in ("widened", "vnni", "amx"):
                try:
                    compiled.set_instruction_set(level)
                    compiled.set_integer_products(products)
                except ValueError:
                    continue
                for count in (1, 2):
                    torch.set_num_threads(count)
                    yield f"{level}, {products}, {count} threads"
    finally:
        torch.set_num_threads(threads)
        compiled.set_instruction_set(before[0])
        compiled.set_integer_products(before[1])
