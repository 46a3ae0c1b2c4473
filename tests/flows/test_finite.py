"""Values that are not finite: refused where a model starts from data, and told where a flow gives them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hybridkern import distributions, flows
from hybridkern.flows import _statistics
from hybridkern.hybrid import heads

BAD = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])


def rows(bad: float = 0.0, n: int = 16, dim: int = 4) -> Tensor:
    x = torch.arange(n * dim, dtype=torch.float32).reshape(n, dim) % 7
    x[3, 1] = bad
    return x


def images(bad: float = 0.0) -> Tensor:
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    x[7, 0, 1, 2] = bad
    return x


STARTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "planar": (lambda: flows.Planar(4), "x"),
    "idf": (lambda: flows.IDF(4, layers=1, hidden=4), "x"),
    "logistic": (lambda: distributions.DiscretizedLogistic(4), "x"),
    "mixture": (lambda: distributions.DiscretizedLogisticMixture(4), "x"),
    "categorical": (lambda: heads.Categorical(4, 2), "z"),
    "gaussian": (lambda: heads.Gaussian(4), "z"),
}


@BAD
@pytest.mark.parametrize("name", STARTED)
def test_models_on_vectors_refuse_to_start(name: str, bad: float) -> None:
    build, argument = STARTED[name]
    torch.manual_seed(0)
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = "got the value" if name == "idf" else f"{argument}: got {bad} in row 3, dimension 1, expected finite"
    with pytest.raises(ValueError, match=message):
        model.initialize(rows(bad))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.initialize(rows())


@BAD
@pytest.mark.parametrize("how", ["initialize", "whiten", "first batch"])
def test_glow_refuses_to_start(how: str, bad: float) -> None:
    torch.manual_seed(0)
    flow = flows.Glow((1, 4, 4), levels=1, steps=2, hidden=4).train()
    starts = {"initialize": flow.initialize, "whiten": lambda x: flow.initialize(x, whiten=True), "first batch": flow}
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    with pytest.raises(ValueError, match=rf"x: got {bad} at \(7, 0, 1, 2\), expected finite numbers only; nothing was"):
        starts[how](images(bad))
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert all(module.training for module in flow.modules())
    two = images(bad)
    two[9] = bad
    with pytest.raises(ValueError, match=rf"got {bad} at \(7, 0, 1, 2\) and 16 more of 256 values"):
        starts[how](two)
    starts[how](images())
    assert flow.eval().log_prob(images()).isfinite().all()


def test_another_rank_with_a_bad_value_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statistics, "_over_ranks", lambda sums: sums + 1)
    flow = flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4)
    with pytest.raises(ValueError, match="x: got a value that is not finite on another rank; nothing was changed"):
        flow.initialize(images())


def test_on_a_device_the_next_call_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    flow = flows.Glow((1, 4, 4), levels=1, steps=2, hidden=4).train()
    with monkeypatch.context() as patch:  # what a batch on a GPU goes through: an answer that nobody waits for
        patch.setattr(flows.glow, "finite_over_ranks", lambda name, x: x.isfinite().all())
        flow(images(math.nan))
    assert all(parameter.isfinite().all() for parameter in flow.parameters()), "one bad value leaves no NaN behind"
    with pytest.raises(ValueError, match="x: got a value that is not finite in the batch that started actnorm"):
        flow(images())
    flow(images())
    assert flow._initialized and flow.eval().log_prob(images()).isfinite().all()


def _spoiled(flow: nn.Module, parameter: str) -> nn.Module:
    with torch.no_grad():
        flow.get_parameter(parameter).fill_(math.nan)
    return flow


def _glow() -> flows.Glow:
    flow = flows.Glow((1, 4, 4), levels=1, steps=1, hidden=4)
    flow.initialize(images())
    return flow.eval()


WATCHED: dict[str, Callable[[], nn.Module]] = {
    "Glow": lambda: _spoiled(_glow(), "levels.0.mixing.log_scale"),
    "RealNVP": lambda: _spoiled(flows.RealNVP(4, layers=4, hidden=4), "couplings.0.net.4.bias"),
    "Planar": lambda: _spoiled(flows.Planar(4), "maps.0.u"),
}


@pytest.mark.parametrize("run", ["sample", "sample_and_log_prob", "inverse"])
@pytest.mark.parametrize("name", WATCHED)
def test_samples_that_are_not_finite_are_told_once(name: str, run: str) -> None:
    torch.manual_seed(0)
    flow = WATCHED[name]()
    function, argument = (flow.inverse, torch.zeros(2, flow.dim)) if run == "inverse" else (getattr(flow, run), 2)
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match=rf"{name}: a sample or an inverse is not finite.*check_finite"):
            function(argument)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(argument)


def test_inputs_far_outside_are_told() -> None:
    torch.manual_seed(0)
    flow = flows.Glow((1, 8, 8), levels=1, steps=8, hidden=8, form="glow")  # bounds its scale from above only
    flow.initialize(torch.rand(16, 1, 8, 8) - 0.5)
    with torch.no_grad():
        for parameter in flow.eval().parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        z, _ = flow(1e6 * torch.randn(2, 1, 8, 8))
        with pytest.warns(RuntimeWarning, match="Glow: a sample or an inverse is not finite"):
            flow.inverse(z)


def test_large_finite_values_are_no_reason_to_warn() -> None:
    flow = flows.RealNVP(4, layers=1, hidden=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.inverse(torch.full((8, 4), 3e37))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_running_averages_outlive_a_bad_batch(bad: float) -> None:
    """The batch gives NaN; the model is what it was, and so is the next batch."""
    torch.manual_seed(0)
    flow = flows.Glow((1, 4, 4), levels=1, steps=2, hidden=4, norm="batchnorm").train()
    x = torch.randn(4, 1, 4, 4)
    flow.log_prob(x)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    wrong = x.clone()
    wrong[2, 0, 1, 1] = bad
    assert not flow.log_prob(wrong).isfinite().any()
    for name, value in flow.state_dict().items():
        assert value.isfinite().all(), name
    assert any(not torch.equal(value, before[name]) for name, value in flow.state_dict().items()), "others count"
    assert flow.eval().log_prob(x).isfinite().all()
