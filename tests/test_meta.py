"""Everything that trains, on tensors without memory: no value is asked for, and no tensor comes from another device.

Models are built under ``torch.device("meta")`` and run outside of it. A constant that somebody makes on the CPU then
meets a meta tensor, which PyTorch refuses, and so is every look at a value. On a GPU the one would be an error, the
other a wait.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hybridkern import flows, optim
from hybridkern.hybrid import HybridIDF, HybridModel, heads, objectives
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from hybridkern.transforms import dequantize
from tests.flows.factories import FLOWS

META = torch.device("meta")
DIM = 6
FLOATS, LABELS = torch.float32, torch.int64

HEADS: dict[str, tuple[Callable[[], heads.Head], torch.dtype]] = {
    "categorical": (lambda: heads.Categorical(DIM, 3), LABELS),
    "categorical-layers": (lambda: heads.Categorical(DIM, 3, hidden=(4,), dropout=0.1, input_dropout=0.1), LABELS),
    "gaussian": (lambda: heads.Gaussian(DIM), FLOATS),
    "gaussian-by-input": (lambda: heads.Gaussian(DIM, hidden=(4,), noise="input"), FLOATS),
    "bayesian-linear": (lambda: heads.BayesianLinear(DIM, trainable=True, bias=True), FLOATS),
    "bayesian-linear-many-features": (lambda: heads.BayesianLinear(DIM, trainable=True), FLOATS),
    "bayesian-logistic": (lambda: heads.BayesianLogistic(DIM, bias=True), LABELS),
    "bayesian-logistic-diagonal": (lambda: heads.BayesianLogistic(DIM, covariance="diagonal", rows=100), LABELS),
}
OBJECTIVES: dict[str, objectives.Objective] = {
    "joint": objectives.Joint(),
    "weighted": objectives.Weighted(0.5, per_dimension=True),
    "convex": objectives.Convex(0.3),
    "jacobian-weighted": objectives.JacobianWeighted(0.5),
    "separate": objectives.Separate(),
    "semi-supervised": objectives.SemiSupervised(objectives.Weighted(0.5), entropy_weight=0.7),
}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamax": optim.Adamax,
    "adamax-foreach": lambda params: optim.Adamax(params, foreach=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with META:
        return build()


def trained(model: nn.Module, loss: Tensor, optimizer: str = "adamax") -> None:
    """One step; every parameter that the loss reaches has a gradient of its own shape."""
    params = [p for p in model.parameters() if p.requires_grad]
    loss.backward()
    assert loss.shape == () and loss.is_meta and any(p.grad is not None for p in params)
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    OPTIMIZERS[optimizer](params).step()


# of the named forms one, and the shallow flows: tensors without memory are slow
LEFT_OUT = {"planar-1", "realnvp-24-layers", *(f"realnvp-5-{form}" for form in NAMED_FORMS if form != "glow")}
FLOW_NAMES = [name for name in FLOWS if name not in LEFT_OUT]


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_flow(name: str) -> None:
    flow = on_meta(FLOWS[name])
    x = torch.empty(4, *flow.shape, device=META)
    if hasattr(getattr(flow, "flow", flow), "initialize") and name != "planar-3-context":
        flow.initialize(x)
    trained(flow, -flow.log_prob(x).mean())
    for direction in (flow.train(), flow.eval()):
        z, log_det = direction(x)
        back, _ = direction.inverse(z.detach())
        assert back.shape == x.shape and log_det.shape == (4,) and back.is_meta and log_det.is_meta
    assert flow.sample(3).is_meta
    assert all(value.is_meta for value in flow.sample_and_log_prob(3))


@pytest.mark.parametrize("permutation", ["conv1x1", "shuffle"])
@pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])
def test_glow_starts_from_data(norm: str, permutation: str) -> None:
    options = {"levels": 2, "steps": 2, "hidden": 4, "norm": norm, "permutation": permutation}
    flow = on_meta(lambda: flows.Glow((3, 8, 8), **options))
    flow.initialize(torch.empty(8, 3, 8, 8, device=META), whiten=permutation == "conv1x1")
    started = on_meta(lambda: flows.Glow((3, 8, 8), **options)).train()
    trained(started, -started.log_prob(torch.empty(8, 3, 8, 8, device=META)).mean())


def test_glow_starts_over_ranks_with_tensors_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL takes those of GPUs alone."""
    given: list[Tensor] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", given.append)
    flow = on_meta(lambda: flows.Glow((3, 8, 8), levels=2, steps=2, hidden=4))
    flow.initialize(torch.empty(8, 3, 8, 8, device=META), whiten=True)
    assert len(given) >= 2 * 2 * 3 and all(value.is_meta for value in given)


@pytest.mark.parametrize("rows", [4, 20])
@pytest.mark.parametrize("name", HEADS)
def test_head(name: str, rows: int) -> None:
    build, kind = HEADS[name]
    head = on_meta(build)
    z, y = torch.empty(rows, DIM, device=META, requires_grad=True), torch.empty(rows, dtype=kind, device=META)
    head.initialize(z.detach(), y)
    trained(head, -head.log_likelihood(z, y).mean())
    head.eval()
    prediction = head(z)
    assert head.log_prob(prediction, y).shape == head.predict(prediction).shape == (rows,)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name: str) -> None:
    model = on_meta(lambda: HybridModel(flows.RealNVP(DIM, layers=2, hidden=4), heads.Categorical(DIM, 3)))
    x, y = torch.empty(4, DIM, device=META), torch.empty(4, dtype=LABELS, device=META)
    trained(model, model.loss(x, y, OBJECTIVES[name]))
    model.eval()
    assert model(x).log_px.is_meta and model.log_joint(x, y).shape == (4,)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    flow = on_meta(lambda: flows.RealNVP(DIM, layers=2, hidden=4))
    trained(flow, -flow.log_prob(torch.empty(4, DIM, device=META)).mean(), name)


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
def test_hybrid_idf(lattice: str) -> None:
    def build() -> nn.Module:
        return HybridIDF([lambda: nn.Linear(3, 3)], nn.Linear(6, 3), 2, D=6, lattice=lattice)

    model = on_meta(build)
    x, y = torch.empty(4, 6, device=META), torch.empty(4, dtype=LABELS, device=META)
    trained(model, model(x, y))


def test_dequantization() -> None:
    images = torch.empty(4, 3, 8, 8, dtype=torch.uint8, device=META)
    assert all(value.is_meta for value in dequantize(images))
