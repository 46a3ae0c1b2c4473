"""What is measured: models as the libraries' own documentation builds them, and the ways to accelerate them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.glow import sides
from benchmarks.glow.side import Architecture
from benchmarks.integrations import vectors
from benchmarks.integrations.alone import networks_alone
from hybridkern.integrations import accelerate

LIBRARY, AGAIN = "library", "library again"
FLOAT32, NETWORKS, BF16 = "accelerated", "accelerated, networks too", "accelerated, networks in bf16"
ALONE = "its networks alone"  # called as plain ``accelerate`` calls them: a bound of its ratio
COMPILED = "torch.compile of the library"
OPTIONS: Mapping[str, Mapping[str, object]] = {
    FLOAT32: {},
    ALONE: {},
    NETWORKS: {"networks": True},
    BF16: {"networks": True, "precision": "bf16"},
}
Loss = Callable[[nn.Module, Tensor], Tensor]
Sample = Callable[[nn.Module, int], object]

GLOW = Architecture()
DIM, LAYERS = 64, 16


@dataclass(frozen=True)
class Work:
    """A model and what one measurement does with it.

    Attributes:
        name: of the row in the table.
        build: makes the model, with the loss that is differentiated.
        shape: of the batch.
        targets: least ratio aimed at, by the way of accelerating; ``None``: none. What is not named is not measured.
        sample: draws as many examples as the batch has, which is measured then and not a pass; ``None``: a pass is.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Loss]]
    shape: tuple[int, ...]
    targets: Mapping[str, float | None] = field(default_factory=dict)
    sample: Sample | None = None

    def sides(self) -> dict[str, Callable[[], None]]:
        """A pass, or samples, by side: of the library's model, of accelerated copies of it, and of it compiled."""
        torch.manual_seed(0)
        x = torch.rand(self.shape, generator=torch.Generator().manual_seed(0)) - 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the libraries call that torch deprecates
            model, loss = self.build()
            with torch.no_grad():
                loss(model, x)  # initializes
        found = {LIBRARY: self._run(model, loss, x), AGAIN: self._run(model, loss, x)}
        for way in self.targets:
            other = copy.deepcopy(model)
            if way == COMPILED:
                found[way] = self._run(other, torch.compile(loss, dynamic=False), x)
                continue
            report = accelerate(other, **OPTIONS[way])  # type: ignore[arg-type]
            found[way] = (
                networks_alone(other, report, partial(loss, other, x)) if way == ALONE else self._run(other, loss, x)
            )
        return found

    def _run(self, model: nn.Module, loss: Loss, x: Tensor) -> Callable[[], None]:
        if self.sample is None:
            return _pass(model, loss, x)
        return partial(_draw, self.sample, model, len(x))


def _pass(model: nn.Module, loss: Loss, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad(set_to_none=True)
        loss(model, x).backward()

    return run


def _draw(sample: Sample, model: nn.Module, count: int) -> None:
    sample(model, count)


def normflows_glow(architecture: Architecture = GLOW) -> tuple[nn.Module, Loss]:
    """``MultiscaleFlow`` of ``GlowBlock``, ``Squeeze`` and ``Merge``."""
    return sides.build("normflows", architecture).model, lambda model, x: -model.log_prob(x, None).mean()


def freia_glow(architecture: Architecture = GLOW) -> tuple[nn.Module, Loss]:
    """A graph of ``AllInOneBlock``, ``IRevNetDownsampling`` and ``Split``."""
    return sides.build("freia", architecture).model, lambda model, x: -model.log_prob(x).mean()


def normflows_vectors() -> tuple[nn.Module, Loss]:
    """The model of its README: coupling blocks on halves that are swapped."""
    import normflows as nf

    flows = []
    for _ in range(LAYERS):
        network = nf.nets.MLP([DIM // 2, 64, 64, DIM], init_zeros=True)
        flows += [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(DIM, mode="swap")]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(DIM), flows)
    return model, lambda model, x: model.forward_kld(x)


def nflows_vectors() -> tuple[nn.Module, Loss]:
    """``SimpleRealNVP``."""
    from nflows.flows import SimpleRealNVP

    return SimpleRealNVP(DIM, 64, LAYERS, 1), lambda model, x: -model.log_prob(x).mean()


def freia_vectors() -> tuple[nn.Module, Loss]:
    """The model of its README: a sequence of ``AllInOneBlock``."""
    from FrEIA import framework, modules

    def network(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))

    inn = framework.SequenceINN(DIM)
    for _ in range(LAYERS):
        inn.append(modules.AllInOneBlock, subnet_constructor=network, permute_soft=True)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        z, log_det = model(x)
        return (0.5 * z.square().sum(1) - log_det).mean()

    return inn, loss


_IMAGES = (32, *GLOW.shape)
_VECTORS = (1024, DIM)
_STEP: Mapping[str, float | None] = {FLOAT32: None, ALONE: None, COMPILED: None}
WORKS = (
    Work("normflows, Glow", normflows_glow, _IMAGES, {FLOAT32: 1.3, ALONE: None, NETWORKS: None}),
    Work("normflows, Glow, bf16", normflows_glow, _IMAGES, {BF16: 3.0}),
    Work("FrEIA, Glow", freia_glow, _IMAGES, {FLOAT32: 1.3, ALONE: None, NETWORKS: None}),
    Work("FrEIA, Glow, bf16", freia_glow, _IMAGES, {BF16: 3.0}),
    Work("normflows, RealNVP on vectors", normflows_vectors, _VECTORS, {FLOAT32: 1.5, ALONE: None}),
    Work("nflows, RealNVP on vectors", nflows_vectors, _VECTORS, {FLOAT32: 1.5, ALONE: None}),
    Work("FrEIA, RealNVP on vectors", freia_vectors, _VECTORS, {FLOAT32: 1.5, ALONE: None}),
    Work("nflows, NSF", partial(vectors.nflows_nsf, 16, 64, 8), (256, 16), {**_STEP, FLOAT32: 3.5}),
    Work("nflows, NSF, wide", partial(vectors.nflows_nsf, 64, 128, 8), (1024, 64), {**_STEP, FLOAT32: 4.0}),
    Work("nflows, NSF, conditional splines alone", partial(vectors.nflows_nsf, 16, 64, 8, False), (256, 16), _STEP),
    Work("normflows, NSF", partial(vectors.normflows_nsf, 16, 64, 8), (256, 16), {**_STEP, FLOAT32: 3.5}),
    Work("nflows, MAF", partial(vectors.nflows_maf, 16, 64, 5), (256, 16), {**_STEP, NETWORKS: 1.6}),
    Work("normflows, MAF", partial(vectors.normflows_maf, 16, 64, 5), (256, 16), {**_STEP, NETWORKS: None}),
    Work("nflows, samples of NSF", partial(vectors.nflows_nsf, 16, 64, 8), (256, 16), {FLOAT32: 4.0}, vectors.sample),
    Work(
        "nflows, samples of MAF",
        partial(vectors.nflows_maf, 16, 64, 5),
        (256, 16),
        {FLOAT32: None, NETWORKS: 2.0},
        vectors.sample,
    ),
)
