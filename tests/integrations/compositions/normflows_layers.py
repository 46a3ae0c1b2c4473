"""Every layer of normflows, cheap, on vectors of 6 features and on images of 4 x 4 x 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import normflows as nf
import torch
from normflows.flows.neural_spline import coupling
from normflows.nets.lipschitz import LipschitzMLP
from torch import Tensor, nn

from tests.integrations.compositions.networks import NETWORKS, with_context

DIM = 6
IMAGE = (4, 4, 4)
Make = Callable[[str], nn.Module]
CLASSES = torch.tensor([0, 2, 1, 1, 0])


def _block(scale_map: str = "exp", scale: bool = True, mode: str = "channel", images: bool = False) -> Make:
    kept = 3 if not images else (IMAGE[0] if "checkerboard" in mode else IMAGE[0] // 2)

    def make(network: str) -> nn.Module:
        inner = NETWORKS[network](kept, kept * (2 if scale else 1), images)
        return nf.flows.AffineCouplingBlock(inner, scale, scale_map, mode)

    return make


def _masked(scale: bool = True, shift: bool = True) -> Make:
    def make(network: str) -> nn.Module:
        nets = [NETWORKS[network](DIM, DIM, False) if wanted else None for wanted in (shift, scale)]
        return nf.flows.MaskedAffineFlow(torch.tensor([1.0, 0, 1, 0, 0, 1]), *nets)

    return make


def _parts(network: str) -> nn.Module:
    """Split, coupling and merge on their own."""
    inner = nf.flows.AffineCoupling(NETWORKS[network](3, 6, False))
    return Apart([nf.flows.Split(), inner, nf.flows.Merge()])


class Apart(nf.flows.Flow):
    """A user's own flow around layers of the library."""

    def __init__(self, flows: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(flows)

    def forward(self, z: Tensor) -> tuple[Any, Any]:
        """Latent -> data."""
        log_det: Any = 0
        for part in self.parts:
            z, own = part(z)
            log_det = log_det + own
        return z, log_det

    def inverse(self, z: Tensor) -> tuple[Any, Any]:
        """Data -> latent."""
        log_det: Any = 0
        for part in reversed(self.parts):
            z, own = part.inverse(z)
            log_det = log_det + own
        return z, log_det


def _residual(_: str) -> nn.Module:
    return nf.flows.Residual(LipschitzMLP([DIM, 4, DIM], lipschitz_const=0.9), n_dist="poisson", reduce_memory=False)


def _hmc(_: str) -> nn.Module:
    return nf.flows.HamiltonianMonteCarlo(
        nf.distributions.DiagGaussian(DIM), 2, torch.full((DIM,), -2.0), torch.zeros(DIM)
    )


def _metropolis(_: str) -> nn.Module:
    proposal = nf.distributions.DiagGaussianProposal((DIM,), 0.1)
    return nf.flows.MetropolisHastings(nf.distributions.DiagGaussian(DIM), proposal, 2)


def _spline(kind: Any, *given: Any, **options: Any) -> Make:
    return lambda _: kind(DIM, 1, 6, *given, num_bins=3, **options)


def _spline_coupling(tails: Any, bound: Any, mask: tuple[int, ...], **options: Any) -> Make:
    """The layer itself, whose ``forward`` is data -> latent."""

    def make(network: str) -> nn.Module:
        def build(inputs: int, outputs: int) -> nn.Module:
            return with_context(NETWORKS[network](inputs, outputs, False))

        return coupling.PiecewiseRationalQuadraticCoupling(torch.tensor(mask), build, 3, tails, bound, **options)

    return make


_CIRCULAR = ["circular", "linear", "linear", "circular", "linear", "circular"]
_BOUNDS = torch.tensor([0.5, 1.0, 2.0, 1.5, 3.0, 1.0])
SPLINES = nf.flows.CoupledRationalQuadraticSpline
CIRCULAR = nf.flows.CircularCoupledRationalQuadraticSpline
SPLINE_MAF = nf.flows.AutoregressiveRationalQuadraticSpline
CIRCULAR_MAF = nf.flows.CircularAutoregressiveRationalQuadraticSpline
MAF = nf.flows.MaskedAffineAutoregressive
COUPLINGS: Mapping[str, Make] = {
    "block": _block(),
    "block sigmoid": _block("sigmoid"),
    "block sigmoid_inv channel_inv": _block("sigmoid_inv", mode="channel_inv"),
    "block additive": _block(scale=False),
    "block checkerboard": _block(mode="checkerboard"),
    "masked": _masked(),
    "masked shift": _masked(scale=False),
    "masked scale": _masked(shift=False),
    "parts": _parts,
    "reversed": lambda network: nf.flows.Reverse(_block()(network)),
    "composite": lambda network: nf.flows.Composite([_block()(network), nf.flows.Permute(DIM, "swap")]),
    "spline": _spline(SPLINES),
    "spline reversed mask": _spline(SPLINES, reverse_mask=True, tail_bound=1.0),
    "spline tails": _spline(SPLINES, tails="circular", tail_bound=1.0),
    "spline box": _spline(SPLINES, tails=None),
    "spline conditioned": _spline(SPLINES, 2),
    "spline lists": _spline_coupling(_CIRCULAR, 1.5, (0, 1, 1, 1, 0, 1)),
    "spline bounds": _spline_coupling("linear", _BOUNDS, (1, 1, 0, 1, 0, 1)),
    "spline lists and bounds": _spline_coupling(_CIRCULAR, _BOUNDS, (1, 0, 0, 1, 1, 1)),
    "circular spline": _spline(CIRCULAR, [0, 3]),
    "circular bounds": _spline(CIRCULAR, [0, 3], tail_bound=_BOUNDS, init_identity=False),
    "autoregressive spline": _spline(SPLINE_MAF, permute_mask=True),
    "autoregressive conditioned": _spline(SPLINE_MAF, 2),
    "circular autoregressive": _spline(CIRCULAR_MAF, [1, 2], tail_bound=_BOUNDS),
    "maf": lambda _: MAF(DIM, 6, num_blocks=1),
    "maf counting": lambda _: MAF(DIM, 6, num_blocks=1, use_batch_norm=True, dropout_probability=0.3),
    "maf random": lambda _: MAF(DIM, 6, num_blocks=1, use_residual_blocks=False, random_mask=True),
    "maf conditioned": lambda _: MAF(DIM, 6, context_features=2, num_blocks=1),
    "lu permute": lambda _: nf.flows.LULinearPermute(DIM),
}
OTHERS: Mapping[str, Make] = {
    "actnorm": lambda _: nf.flows.ActNorm(DIM),
    "affine const": lambda _: nf.flows.AffineConstFlow((DIM,)),
    "affine const scale": lambda _: nf.flows.AffineConstFlow((DIM,), shift=False),
    "class affine": lambda _: nf.flows.CCAffineConst((DIM,), 3),
    "swap": lambda _: nf.flows.Permute(DIM, "swap"),
    "shuffle": lambda _: nf.flows.Permute(DIM),
    "batch norm": lambda _: nf.flows.BatchNorm(),
    "linear": lambda _: nf.flows.InvertibleAffine(DIM),
    "linear plain": lambda _: nf.flows.InvertibleAffine(DIM, use_lu=False),
    "planar": lambda _: nf.flows.Planar((DIM,)),
    "planar leaky": lambda _: nf.flows.Planar((DIM,), act="leaky_relu"),
    "radial": lambda _: nf.flows.Radial((DIM,)),
    "wrap": lambda _: nf.flows.PeriodicWrap([0, 2], 2.0),
    "periodic shift": lambda _: nf.flows.PeriodicShift([1], 2.0, 0.5),
    "residual": _residual,
    "hmc": _hmc,
    "metropolis": _metropolis,
    "shift in place": lambda _: nf.transforms.Shift(0.3),
    "logit": lambda _: nf.transforms.Logit(),
    "split": lambda _: nf.flows.Split(),
    "squeeze": lambda _: nf.flows.Squeeze(),
}
IMAGE_COUPLINGS: Mapping[str, Make] = {
    "block": _block(images=True),
    "block sigmoid channel_inv": _block("sigmoid", mode="channel_inv", images=True),
    "block additive": _block(scale=False, images=True),
    "glow": lambda _: nf.flows.GlowBlock(4, 5),
    "glow exp": lambda _: nf.flows.GlowBlock(4, 5, scale_map="exp", split_mode="channel_inv"),
    "glow no lu": lambda _: nf.flows.GlowBlock(4, 5, use_lu=False, scale=False),
    "glow checkerboard": lambda _: nf.flows.GlowBlock(4, 5, split_mode="checkerboard"),
    "glow actnorm": lambda _: nf.flows.GlowBlock(4, 5, net_actnorm=True),
}
IMAGE_OTHERS: Mapping[str, Make] = {
    "actnorm": lambda _: nf.flows.ActNorm((4, 1, 1)),
    "affine const": lambda _: nf.flows.AffineConstFlow((4, 1, 1)),
    "conv": lambda _: nf.flows.Invertible1x1Conv(4),
    "conv lu": lambda _: nf.flows.Invertible1x1Conv(4, use_lu=True),
    "shuffle": lambda _: nf.flows.Permute(4),
    "swap": lambda _: nf.flows.Permute(4, "swap"),
    "squeezed": lambda _: Apart([nf.flows.Reverse(nf.flows.Squeeze()), nf.flows.Squeeze()]),
    "unsqueezed": lambda _: Apart([nf.flows.Squeeze(), nf.flows.Reverse(nf.flows.Squeeze())]),
    "checkerboard": lambda _: Apart([nf.flows.Split("checkerboard"), nf.flows.Merge("checkerboard")]),
    "batch norm": lambda _: nf.flows.BatchNorm(),
    "shift in place": lambda _: nf.transforms.Shift(0.3),
    "planar": lambda _: nf.flows.Planar(IMAGE),
}
