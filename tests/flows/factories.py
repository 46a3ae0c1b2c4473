"""The flows that every law is tested on: small, odd-sized, and with weights far from their start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybridkern import flows, nets, transforms
from hybridkern.hybrid import HybridIDF
from hybridkern.ops.affine_coupling.form import NAMED_FORMS


class LogProb(nn.Module):
    """A module whose forward pass is a flow's log-probability."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


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


class Given(nn.Module):
    """A conditional flow with a context of its own for each row of a batch, and the interface of every flow."""

    def __init__(self, flow: flows.Flow, width: int) -> None:
        super().__init__()
        self.flow = flow
        self.dim, self.shape, self.discrete = flow.dim, flow.shape, flow.discrete
        drawn = torch.randn(64, width, generator=torch.Generator().manual_seed(3))
        self.register_buffer("contexts", drawn, persistent=False)

    def initialize(self, x: Tensor) -> None:
        self.flow.initialize(x, self.contexts[: len(x)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow(x, self.contexts[: x.shape[0]])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z, self.contexts[: z.shape[0]])

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x, self.contexts[: x.shape[0]])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        return self.flow.sample(1, self.contexts[:n], generator=generator).squeeze(1)

    def sample_and_log_prob(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x, log_p = self.flow.sample_and_log_prob(1, self.contexts[:n], generator=generator)
        return x.squeeze(1), log_p.squeeze(1)


def embedding() -> nn.Module:
    """Of three numbers."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh())


def composed() -> flows.Flow:
    """Layers of every kind, one condition for those that take one."""
    affine, spline = transforms.AffineElement("nflows"), transforms.SplineElement("nflows_identity", 4, 3.0)
    layers = [
        transforms.ActNorm(4),
        transforms.Autoregressive(nets.MADE(4, 2, (5,), context=2, order=(2, 0, 3, 1)), affine),
        transforms.LULinear(4),
        transforms.Coupling(nn.Linear(3, 3 * 11), spline, 3),
        transforms.Permutation(4),
        transforms.Autoregressive(nets.MADE(4, 11, (), context=2), spline, inverted=True),
        transforms.PlanarMap(4, 2),
    ]
    return flows.Compose(4, layers, context=2)


VECTORS: dict[str, Callable[[], nn.Module]] = {
    "maf-5": lambda: flows.MAF(5, layers=3, hidden=8),
    "maf-1": lambda: flows.MAF(1, layers=2),
    "maf-additive": lambda: flows.MAF(4, layers=2, hidden=(), form="additive"),
    "maf-6-context": lambda: Given(flows.MAF(6, layers=2, hidden=(3, 9), context=2, form="zuko"), 2),
    "maf-1-embedding": lambda: Given(flows.MAF(1, layers=2, hidden=(4,), context=embedding()), 3),
    "iaf-4": lambda: flows.IAF(4, layers=2, hidden=(6,)),
    "iaf-3-context": lambda: Given(flows.IAF(3, layers=2, hidden=(), context=2), 2),
    "nsf-5": lambda: flows.NSF(5, layers=2, hidden=8, bins=4),
    "nsf-1": lambda: flows.NSF(1, layers=2, bins=4),
    "nsf-4-context": lambda: Given(flows.NSF(4, layers=2, hidden=8, bins=3, context=2, lu=False), 2),
    "nsf-autoregressive": lambda: flows.NSF(4, layers=2, hidden=8, bins=4, autoregressive=True, spline="zuko"),
    "nsf-autoregressive-embedding": lambda: Given(
        flows.NSF(3, layers=2, hidden=(6,), bins=3, autoregressive=True, context=embedding()), 3
    ),
    "realnvp-1": lambda: flows.RealNVP(1, layers=2),
    "realnvp-1-context": lambda: Given(flows.RealNVP(1, layers=2, hidden=4, context=2), 2),
    "realnvp-5-embedding": lambda: Given(flows.RealNVP(5, layers=3, hidden=8, context=embedding()), 3),
    "planar-3-context": lambda: Given(flows.Planar(3, layers=2, context=2), 2),
    "composed": lambda: Given(composed(), 2),
}
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
IMAGES |= {
    "glow-context": lambda: Given(flows.Glow((1, 4, 4), levels=2, steps=2, hidden=4, context=2), 2),
    "glow-embedding": lambda: Given(
        flows.Glow((2, 4, 2), levels=1, steps=2, hidden=4, net="highway", norm="batchnorm", context=embedding()), 3
    ),
}
CONTINUOUS |= IMAGES | VECTORS
DISCRETE: dict[str, Callable[[], nn.Module]] = {
    "idf-2-parts": lambda: flows.IDF(7, layers=2, parts=2, hidden=8),
    "idf-4-parts": lambda: flows.IDF(6, layers=2, parts=4, hidden=(8,)),
    "idf-mixture": lambda: flows.IDF(5, layers=2, parts=2, hidden=8, prior="mixture", components=3),
    "idf-scaled": lambda: flows.IDF(6, layers=2, parts=3, hidden=8, center=8.0, scale=5.0),
    "idf-images": lambda: flows.IDF((1, 8, 4), layers=2, hidden=6),
    "idf-images-mixture": lambda: flows.IDF(
        (3, 8, 8), layers=1, parts=3, hidden=4, levels=3, prior="mixture", components=2, center=8.0, scale=5.0
    ),
    "idf-images-slices": lambda: flows.IDF((1, 4, 4), layers=2, hidden=4, slices=2),
    "idf-1": lambda: flows.IDF(1, layers=2),
    "idf-1-context": lambda: Given(flows.IDF(1, layers=2, hidden=4, context=2, center=8.0, scale=5.0), 2),
    "idf-5-embedding": lambda: Given(flows.IDF(5, layers=2, hidden=8, context=embedding()), 3),
    "hybrid-idf-1": lambda: HybridIDFFlow(6, kinds=1, num_flows=2),
    "hybrid-idf-4": lambda: HybridIDFFlow(8, kinds=4, num_flows=3),
}
FLOWS = CONTINUOUS | DISCRETE


def make(name: str, seed: int = 0) -> nn.Module:
    """The flow of that name, its parameters moved at random: nothing is zero or symmetric any more.

    They are moved less in the deep flow: random couplings multiply their scales, and 24 strong ones would make a map
    that stretches by 1e6, as no trained flow does. So do layers of every kind on top of each other.
    """
    torch.manual_seed(seed)
    flow = FLOWS[name]()
    amount = 0.05 if name == "composed" else 0.1 if "24" in name or name in IMAGES else 0.3
    if isinstance(getattr(flow, "flow", flow), (flows.Glow, flows.Residual)):
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
