"""``torch.set_default_dtype(torch.float64)`` before anything is built: one dtype throughout, and everything runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hybridkern import HybridIDF, distributions, flows
from hybridkern.hybrid import HybridModel, heads, objectives
from tests.flows.factories import FLOWS, make

F64 = torch.float64


@pytest.fixture(autouse=True)
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(F64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name: str, backend: str) -> None:
    torch.manual_seed(0)
    if name.startswith("glow"):
        flow = FLOWS[name]()
        flow.initialize(torch.randn(8, *flow.shape))
    else:
        flow = FLOWS[name]()
    assert dtypes(flow) == {F64}
    x = torch.randint(0, 17, (5, *flow.shape)).to(F64) if flow.discrete else torch.randn(5, *flow.shape)
    log_p = flow.train().log_prob(x)
    log_p.sum().backward()
    sample, log_q = flow.eval().sample_and_log_prob(3)
    assert {log_p.dtype, sample.dtype, log_q.dtype, flow.sample(2).dtype} == {F64}
    back = flow.inverse(flow(x)[0])[0]
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)


HEADS = {
    "categorical": (lambda: heads.Categorical(4, 3, (5,)), torch.tensor([0, 1, 2, 0, 1])),
    "gaussian": (lambda: heads.Gaussian(4, (5,), noise="input"), torch.arange(5.0, dtype=F64)),
    "linear": (lambda: heads.BayesianLinear(4), torch.arange(5.0, dtype=F64)),
    "logistic": (lambda: heads.BayesianLogistic(4), torch.tensor([0, 1, 1, 0, 1])),
}


@pytest.mark.parametrize("name", HEADS)
def test_hybrid_models(name: str) -> None:
    torch.manual_seed(0)
    build, y = HEADS[name]
    model = HybridModel(flows.RealNVP(4, layers=2, hidden=8), build())
    x = torch.randn(5, 4)
    model.head.initialize(model.flow(x)[0].detach(), y)
    assert dtypes(model) == {F64}
    loss = model.loss(x, y, objectives.Weighted(0.5))
    loss.backward()
    assert loss.dtype is F64 and model(x).prediction.dtype is F64


def test_hybrid_idf_and_distributions() -> None:
    torch.manual_seed(0)
    model = HybridIDF([lambda: torch.nn.Linear(2, 2)], torch.nn.Linear(4, 3), 2, D=4)
    x = torch.randint(0, 9, (5, 4))
    assert dtypes(model) == {F64} and model.log_prior(model.f(x)).dtype is F64 and model.sample(2).dtype is F64
    for base in (distributions.DiscretizedLogistic(4), distributions.DiscretizedLogisticMixture(4)):
        base.initialize(x)
        assert dtypes(base) == {F64} and base.sample(2).dtype is F64 and base(x.to(F64)).dtype is F64


def test_numbers_are_those_of_a_flow_made_double() -> None:
    torch.set_default_dtype(torch.float32)
    flow = make("glow-2-levels").double()
    torch.set_default_dtype(F64)
    other = FLOWS["glow-2-levels"]()
    other.load_state_dict(flow.state_dict())
    x = torch.randn(3, *flow.shape)
    assert torch.equal(other.eval().log_prob(x), flow.eval().log_prob(x))
