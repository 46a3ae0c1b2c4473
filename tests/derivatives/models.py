"""The rows that are hybrid models, their heads and objectives, and distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern import distributions, flows
from hybridkern.hybrid import HybridIDF, HybridModel, heads, objectives
from tests.derivatives.flows import Make, module_subject, moved
from tests.derivatives.subject import Subject, normal

_CLASSES = torch.tensor([1, 0])
_TARGETS = normal(9, 2)
HEADS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "Categorical": (lambda: heads.Categorical(3, 3), _CLASSES),
    "Categorical with layers": (lambda: heads.Categorical(3, 2, hidden=(4,), activation=nn.Tanh), _CLASSES),
    "Gaussian": (lambda: heads.Gaussian(3), _TARGETS),
    "Gaussian with noise by input": (lambda: heads.Gaussian(3, hidden=(3,), noise="input"), _TARGETS),
    "BayesianLinear": (lambda: heads.BayesianLinear(3, trainable=True, bias=True), _TARGETS),
    "BayesianLogistic": (lambda: heads.BayesianLogistic(3), _CLASSES),
    "BayesianLogistic, diagonal": (lambda: heads.BayesianLogistic(3, bias=True, covariance="diagonal"), _CLASSES),
}
OBJECTIVES = {
    "Weighted": objectives.Weighted(0.5, per_dimension=True),
    "Convex": objectives.Convex(0.3),
    "JacobianWeighted": objectives.JacobianWeighted(0.5),
    "Separate": objectives.Separate(),
    "SemiSupervised": objectives.SemiSupervised(objectives.Weighted(0.5), entropy_weight=0.7),
}


def _model(head: str, objective: objectives.Objective = objectives.Joint()) -> Make:  # noqa: B008
    def make() -> Subject:
        torch.manual_seed(1)
        build, target = HEADS[head]
        if isinstance(objective, objectives.SemiSupervised):
            target = torch.tensor([1, -1])
        model = moved(HybridModel(flows.RealNVP(3, layers=2, hidden=(3,)), build())).eval()

        def ask(model: Any, x: Tensor) -> tuple[Tensor, ...]:
            return (model.loss(x, target, objective)[None],)

        subject = module_subject(model, ask, normal(0, 2, 3))
        subject.rows = ()  # the targets belong to the whole batch
        if isinstance(objective, objectives.Separate):
            subject.smooth = subject.function  # its gradient is meant not to be that of its value
        return subject

    return make


def _distribution(build: Callable[[], nn.Module]) -> Make:
    def make() -> Subject:
        torch.manual_seed(2)
        return module_subject(moved(build()), lambda base, x: (base(x),), normal(0, 2, 3, scale=2.0))

    return make


def _hybrid_idf(kinds: int, lattice: str, train: bool) -> Make:
    def make() -> Subject:
        torch.manual_seed(3)
        part = 2 if kinds == 1 else 1
        model = HybridIDF([lambda: nn.Linear(4 - part, part)] * kinds, nn.Linear(4, 2), 2, D=4, lattice=lattice)
        model.classnet = nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=1))
        x = torch.tensor([[0.0, 3.0, -2.0, 5.0], [1.0, -4.0, 2.0, 0.0]], dtype=torch.float64)
        model = moved(model).train(train)
        with torch.no_grad():
            model.beta += 0.8
        return module_subject(model, lambda m, x: (m(x, _CLASSES)[None],), x, straight=True)

    return make


MODELS: dict[str, Make] = {
    **{head: _model(head) for head in HEADS},
    **{name: _model("Categorical", objective) for name, objective in OBJECTIVES.items()},
    "DiagonalGaussian": _distribution(lambda: distributions.DiagonalGaussian(3, trainable=True)),
    "DiscretizedLogistic": _distribution(lambda: distributions.DiscretizedLogistic(3)),
    "DiscretizedLogisticMixture": _distribution(lambda: distributions.DiscretizedLogisticMixture(3, components=2)),
    **{
        f"HybridIDF of {kinds}, {lattice}{', in training' * train}": _hybrid_idf(kinds, lattice, train)
        for kinds in (1, 4)
        for lattice in ("exact", "tutorial")
        for train in (False, True)
    },
}
