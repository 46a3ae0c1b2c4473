"""The flows that every law is tested on: small, odd-sized, and with weights far from their start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.hybrid import HybridIDF
from hybridkern.ops.affine_coupling.form import NAMED_FORMS


class HybridIDFFlow(nn.Module):
    """The flow and the prior inside a ``HybridIDF``, with the interface of every flow."""

    discrete = True

    def __init__(self, dim: int, kinds: int, num_flows: int) -> None:
        super().__init__()
        part = dim // (2 if kinds == 1 else 4)
        self.dim = dim
        self.shape = (dim,)

        def net() -> nn.Module:
            return nn.Sequential(nn.Linear(dim - part, 12), nn.LeakyReLU(), nn.Linear(12, part))

        self.model = HybridIDF([net] * kinds, nn.Identity(), num_flows, D=dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.model.f(x)
        return z, z.new_zeros(len(z))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.model.f_inv(z)
        return x, x.new_zeros(len(x))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prior(self.model.f(x))

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.model.sample(n, generator=generator).squeeze(1)

    def sample_and_log_prob(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        z = self.model.prior_sample(n, generator=generator)
        return self.model.f_inv(z), self.model.log_prior(z)


CONTINUOUS: dict[str, Callable[[], nn.Module]] = {
    "realnvp-2": lambda: flows.RealNVP(2, layers=3, hidden=8),
    "realnvp-5-one-layer": lambda: flows.RealNVP(5, layers=1, hidden=(6, 7, 8)),
    "realnvp-24-layers": lambda: flows.RealNVP(4, layers=24, hidden=(8,)),
    "planar-1": lambda: flows.Planar(1, layers=3),
    "planar-5": lambda: flows.Planar(5, layers=2),
    "residual-3": lambda: flows.Residual(3, blocks=2, hidden=(8, 6)),
    "residual-dense": lambda: flows.Residual(2, blocks=2, net="dense", hidden=(4, 4), activation="clipswish"),
    "residual-images": lambda: flows.Residual((2, 2, 2), blocks=(1, 1), hidden=(6,), factor_out=True),
    **{f"realnvp-5-{form}": lambda form=form: flows.RealNVP(5, layers=4, hidden=8, form=form) for form in NAMED_FORMS},
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "glow-2-levels": lambda: flows.Glow((3, 8, 4), levels=2, steps=2, hidden=8),
    "glow-1-channel": lambda: flows.Glow((1, 4, 4), levels=1, steps=3, hidden=4, form="additive"),
    "glow-highway": lambda: flows.Glow((3, 4, 4), levels=2, steps=1, hidden=6, net="highway", form="realnvp"),
    "glow-batchnorm": lambda: flows.Glow((1, 8, 8), levels=2, steps=2, hidden=4, norm="batchnorm"),
    "glow-shuffle": lambda: flows.Glow((2, 4, 4), levels=1, steps=3, hidden=8, permutation="shuffle"),
    "realnvp-images": lambda: flows.RealNVP((3, 4, 8), layers=3, hidden=8, levels=2),
    "realnvp-images-1-level": lambda: flows.RealNVP((1, 2, 6), layers=2, hidden=(4, 4), levels=1, form="additive"),
    "glow-reverse-1x1-net": lambda: flows.Glow(
        (2, 4, 2), levels=1, steps=2, permutation="reverse", form="normflows", net=lambda i, o: nn.Conv2d(i, o, 1)
    ),
}
CONTINUOUS |= IMAGES
DISCRETE: dict[str, Callable[[], nn.Module]] = {
    "idf-2-parts": lambda: flows.IDF(7, layers=2, parts=2, hidden=8),
    "idf-4-parts": lambda: flows.IDF(6, layers=2, parts=4, hidden=(8,)),
    "idf-mixture": lambda: flows.IDF(5, layers=2, parts=2, hidden=8, prior="mixture", components=3),
    "idf-scaled": lambda: flows.IDF(6, layers=2, parts=3, hidden=8, center=8.0, scale=5.0),
    "idf-images": lambda: flows.IDF((1, 8, 4), layers=2, hidden=6),
    "idf-images-mixture": lambda: flows.IDF(
        (3, 8, 8), layers=1, parts=3, hidden=4, levels=3, prior="mixture", components=2, center=8.0, scale=5.0
    ),
    "hybrid-idf-1": lambda: HybridIDFFlow(6, kinds=1, num_flows=2),
    "hybrid-idf-4": lambda: HybridIDFFlow(8, kinds=4, num_flows=3),
}
FLOWS = CONTINUOUS | DISCRETE


def make(name: str, seed: int = 0) -> nn.Module:
    """The flow of that name, its parameters moved at random: nothing is zero or symmetric any more.

    They are moved less in the deep flow: random couplings multiply their scales, and 24 strong ones would make a map
    that stretches by 1e6, as no trained flow does.
    """
    torch.manual_seed(seed)
    flow = FLOWS[name]()
    amount = 0.1 if "24" in name or name in IMAGES else 0.3
    if isinstance(flow, (flows.Glow, flows.Residual)):
        flow.initialize(data(flow, 16))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += amount * torch.randn_like(parameter)
    return flow


def data(flow: nn.Module, n: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """``n`` examples: integers from 0 to 16 for an integer flow, Gaussian numbers for the others."""
    generator = torch.Generator().manual_seed(seed)
    if flow.discrete:
        return torch.randint(0, 17, (n, *flow.shape), generator=generator).to(dtype)
    return torch.randn(n, *flow.shape, generator=generator, dtype=dtype)
