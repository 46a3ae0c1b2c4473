"""Models of normflows: its README, its real-NVP and Glow examples, and every option of their layers."""

from __future__ import annotations

from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from tests.integrations.cases import Case, Latents


def _back(model: Any, x: Tensor) -> tuple[Latents, Tensor]:
    # the library's own loops add in float32 even for float64
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for flow in reversed(model.flows):
        x, own = flow.inverse(x)
        log_det = log_det + own
    return [x], log_det


def _on(model: Any, latents: Latents) -> tuple[Tensor, Tensor]:
    (z,) = latents
    log_det = torch.zeros(len(z), dtype=z.dtype)
    for flow in model.flows:
        z, own = flow(z)
        log_det = log_det + own
    return z, log_det


def _plain(build: Any, shape: tuple[int, ...]) -> Case:
    return Case(build, shape, _back, _on, lambda m, x: m.log_prob(x), lambda m, n: m.sample(n))


def masked(scale: bool = True, shift: bool = True) -> nn.Module:
    """The real-NVP example: masked affine flows and actnorm."""
    mask = torch.tensor([1.0 if i % 2 else 0.0 for i in range(6)])
    flows: list[nn.Module] = []
    for i in range(3):
        s, t = (nf.nets.MLP([6, 16, 6], init_zeros=True) for _ in range(2))
        flows.append(nf.flows.MaskedAffineFlow(mask if i % 2 else 1 - mask, t if shift else None, s if scale else None))
        flows.append(nf.flows.ActNorm(6))
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(6), flows)


def blocks(scale_map: str = "exp", scale: bool = True, mode: str = "swap", dim: int = 6, **options: Any) -> nn.Module:
    """The README's model: coupling blocks and permutations."""
    flows: list[nn.Module] = []
    for _ in range(4):
        net = nf.nets.MLP([(dim + 1) // 2, 16, 16, (2 if scale else 1) * (dim // 2)], init_zeros=True)
        flows += [nf.flows.AffineCouplingBlock(net, scale, scale_map, **options), nf.flows.Permute(dim, mode=mode)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), flows)


def checkerboard() -> nn.Module:
    """Coupling blocks on images whose pixels are split by color."""
    flows = [
        nf.flows.AffineCouplingBlock(nf.nets.ConvNet2d((2, 8, 4), (3, 3)), split_mode=mode, scale_map="sigmoid")
        for mode in ("checkerboard", "checkerboard_inv")
    ]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian((2, 4, 4)), flows)


def odd_glow() -> nn.Module:
    """Blocks with an odd number of channels, and one without a 1x1 convolution."""
    return nf.NormalizingFlow(nf.distributions.DiagGaussian((3, 4, 4)), [nf.flows.GlowBlock(3, 8) for _ in range(2)])


def glow(base: str = "class", **options: Any) -> nn.Module:
    """The Glow example, smaller: levels of blocks, squeeze and merge; the base depends on the class."""
    bases, merges, flows = [], [], []
    levels, channels, size = 2, 3, 8
    for i in range(levels):
        width = channels * 2 ** (levels + 1 - i)
        flows.append([*(nf.flows.GlowBlock(width, 16, **options) for _ in range(2)), nf.flows.Squeeze()])
        if i > 0:
            merges.append(nf.flows.Merge())
            width //= 2
        shape = (width, size // 2 ** (levels - i), size // 2 ** (levels - i))
        if base == "class":
            bases.append(nf.distributions.ClassCondDiagGaussian(shape, 3))
        elif base == "glow":
            bases.append(nf.distributions.GlowBase(shape, 3))
        else:
            bases.append(nf.distributions.DiagGaussian(shape))
    return nf.MultiscaleFlow(bases, flows, merges, class_cond=base != "diagonal")


def _glow(base: str = "class", **options: Any) -> Case:
    classes = None if base == "diagonal" else torch.tensor([0, 1, 2, 0, 1, 2])
    return Case(
        lambda: glow(base, **options),
        (3, 8, 8),
        lambda m, x: m.inverse_and_log_det(x),
        lambda m, z: m.forward_and_log_det(z),
        lambda m, x: m.log_prob(x, classes),
        lambda m, n: m.sample(n, classes),
    )


BOUNDS = torch.tensor([1.5, 2.0, 3.0, 2.5, 2.0])


def spline(kind: str, **options: Any) -> nn.Module:
    """Its wrappers of spline layers, and the linear layer of its examples between."""
    flows: list[nn.Module] = []
    for i in range(2):
        if kind == "coupled":
            flow = nf.flows.CoupledRationalQuadraticSpline(5, 1, 12, num_bins=4, reverse_mask=i == 1, **options)
        elif kind == "circular":
            flow = nf.flows.CircularCoupledRationalQuadraticSpline(5, 1, 12, [0, 3], num_bins=4, **options)
        elif kind == "autoregressive":
            flow = nf.flows.AutoregressiveRationalQuadraticSpline(5, 1, 12, num_bins=4, **options)
        else:
            flow = nf.flows.CircularAutoregressiveRationalQuadraticSpline(5, 1, 12, [1, 2], num_bins=4, **options)
        flows += [flow] if "circular" in kind else [flow, nf.flows.LULinearPermute(5)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(5), flows)


def autoregressive(**options: Any) -> nn.Module:
    """Masked affine layers and permutations."""
    flows: list[nn.Module] = []
    for _ in range(2):
        flows += [nf.flows.MaskedAffineAutoregressive(5, 12, num_blocks=1, **options), nf.flows.Permute(5)]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(5), flows)


CASES = {
    "masked": _plain(masked, (6,)),
    "masked shift": _plain(lambda: masked(scale=False), (6,)),
    "masked scale": _plain(lambda: masked(shift=False), (6,)),
    "blocks": _plain(blocks, (6,)),
    "blocks sigmoid": _plain(lambda: blocks("sigmoid", mode="shuffle"), (6,)),
    "blocks sigmoid_inv": _plain(lambda: blocks("sigmoid_inv"), (6,)),
    "blocks additive": _plain(lambda: blocks(scale=False), (6,)),
    "blocks channel_inv": _plain(lambda: blocks(split_mode="channel_inv"), (6,)),
    "blocks odd": _plain(lambda: blocks(dim=7, mode="shuffle"), (7,)),
    "checkerboard": _plain(checkerboard, (2, 4, 4)),
    "one block": _plain(
        lambda: nf.NormalizingFlow(nf.distributions.DiagGaussian((4, 4, 4)), [nf.flows.GlowBlock(4, 8)]), (4, 4, 4)
    ),
    "odd glow": _plain(odd_glow, (3, 4, 4)),
    "glow": _glow(),
    "glow base": _glow("glow"),
    "glow diagonal": _glow("diagonal", scale_map="exp"),
    "glow channel_inv": _glow(split_mode="channel_inv", scale_map="sigmoid_inv"),
    "glow checkerboard": _glow(split_mode="checkerboard"),
    "glow no lu": _glow(use_lu=False),
    "glow additive": _glow(scale=False, leaky=0.1),
    "glow net actnorm": _glow(net_actnorm=True),
    "spline": _plain(lambda: spline("coupled"), (5,)),
    "spline circular tails": _plain(lambda: spline("coupled", tails="circular", tail_bound=2.0), (5,)),
    "spline circular": _plain(lambda: spline("circular"), (5,)),
    "spline bounds": _plain(lambda: spline("circular", tail_bound=BOUNDS), (5,)),
    "spline autoregressive": _plain(lambda: spline("autoregressive", permute_mask=True), (5,)),
    "spline circular autoregressive": _plain(lambda: spline("circular autoregressive", tail_bound=BOUNDS), (5,)),
    "maf": _plain(autoregressive, (5,)),
    "maf random": _plain(lambda: autoregressive(use_residual_blocks=False, random_mask=True), (5,)),
}
