"""An accelerated model gives what its library gives: in float64 to 1e-10, in float32 to 1e-5 of float64's numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridkern.integrations import accelerate
from tests.integrations import freia_cases, nflows_cases, normflows_cases, zuko_cases
from tests.integrations.cases import Case, inputs

LIBRARIES = {
    "normflows": normflows_cases.CASES,
    "nflows": nflows_cases.CASES,
    "freia": freia_cases.CASES,
    "zuko": zuko_cases.CASES,
}
CASES = {f"{library} {name}": case for library, cases in LIBRARIES.items() for name, case in cases.items()}
# no coupling that the operators compute, so that nothing changes
STAYING = {f"freia {name}" for name in ("all in one gin", "glow own clamp", "nice", "gin", "rnvp", "conditional rnvp")}
ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-10}


def difference(got: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Largest difference, relative to the largest number expected, which is taken as ``floor`` at least."""
    assert got.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    a, b = got.detach().double().numpy(), expected.detach().double().numpy()
    return float(np.abs(a - b).max() / max(np.abs(b).max(), floor, 1e-300))


def gradients(case: Case, model: nn.Module, given: Sequence[Tensor]) -> list[Tensor]:
    """Of the loss, in every parameter and in the data."""
    x = given[0].clone().requires_grad_()
    model.zero_grad()
    case.loss(model, x, *given[1:]).backward()
    assert x.grad is not None
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
    return [*grads, x.grad]


def trained(case: Case, steps: int) -> nn.Module:
    """The library's own model in float64, after initialization from data and some steps of training."""
    torch.manual_seed(3)
    np.random.seed(3)
    model = case.build().double()
    given = inputs(case, torch.float64, seed=1)
    case.to_latent(model, *given)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss(model, *given).backward()
        optimizer.step()
    with torch.no_grad():
        case.to_latent(model, *given)  # FrEIA keeps a matrix of the last pass, which copies only without a graph
    return model


@pytest.mark.parametrize("steps", [0, 3], ids=["untrained", "trained"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:torch.lu is deprecated", "ignore:torch.triangular_solve is deprecated")
def test_same_numbers(name: str, steps: int) -> None:
    case = CASES[name]
    theirs = trained(case, steps)
    copies = {dtype: copy.deepcopy(theirs).to(dtype) for dtype in ALLOWED}
    exact = inputs(case, torch.float64)
    latents, log_det = case.to_latent(theirs, *exact)
    back, back_log_det = case.to_data(theirs, latents, *exact[1:])
    expected_gradients = gradients(case, theirs, exact)
    most = max(float(grad.abs().max()) for grad in expected_gradients)
    for dtype, allowed in ALLOWED.items():
        ours = copies[dtype]
        report = accelerate(ours)
        assert bool(report.replaced) is (name not in STAYING)
        given = inputs(case, dtype)
        got, got_log_det = case.to_latent(ours, *given)
        assert got_log_det.dtype is dtype
        for part, expected in zip(got, latents, strict=True):
            assert part.dtype is dtype
            assert difference(part, expected) <= allowed
        assert difference(got_log_det.expand(len(given[0])), log_det.expand(len(given[0])), floor=1.0) <= allowed
        got_back, got_back_log_det = case.to_data(ours, [z.to(dtype) for z in latents], *given[1:])
        assert difference(got_back, back) <= allowed
        shape = back_log_det.shape
        assert difference(got_back_log_det.expand(shape), back_log_det, floor=1.0) <= allowed
        for grad, expected in zip(gradients(case, ours, given), expected_gradients, strict=True):
            assert difference(grad, expected, floor=0.01 * most) <= allowed


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.sample is not None])
@pytest.mark.filterwarnings("ignore:torch.lu is deprecated", "ignore:torch.triangular_solve is deprecated")
def test_same_samples(name: str) -> None:
    case = CASES[name]
    assert case.sample is not None
    theirs = trained(case, 1).float()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    for seed in range(2):
        torch.manual_seed(seed)
        expected = case.sample(theirs, 6)
        torch.manual_seed(seed)
        for got, value in zip(case.sample(ours, 6), expected, strict=True):
            assert difference(got, value, floor=1.0) <= 1e-5


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:torch.lu is deprecated")
def test_same_initialization_from_data(name: str) -> None:
    """The first batch sets actnorm as in the library, in the direction and mode that the library does it."""
    case = CASES[name]
    torch.manual_seed(5)
    np.random.seed(5)
    theirs = case.build().double()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    given = inputs(case, torch.float64)
    for seed in (1, 2):
        given = inputs(case, torch.float64, seed=seed)
        expected, _ = case.to_latent(theirs, *given)
        got, _ = case.to_latent(ours, *given)
        for part, value in zip(got, expected, strict=True):
            assert difference(part, value) <= 1e-10
    for (key, value), (own_key, own) in zip(theirs.state_dict().items(), ours.state_dict().items(), strict=True):
        assert key == own_key
        assert difference(own, value, floor=1e-3) <= 1e-10
