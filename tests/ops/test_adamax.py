"""The fused step of Adamax: against float64 NumPy, and as a drop-in for PyTorch's class."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridkern import ops, optim
from tests.ops import inputs

SHAPES = [(), (1,), (7, 33), (1030,), (0, 4), (3, 5, 4, 2)]


def lists(dtype: torch.dtype, shapes=SHAPES) -> list[list[Tensor]]:
    """Parameters, gradients, averages and largest gradients, the last ones positive."""
    made = [[inputs.normal(10 * i + j, shape, dtype) for i, shape in enumerate(shapes)] for j in range(4)]
    return [*made[:3], [value.abs() + 0.1 for value in made[3]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_one_step(backend: str, dtype: torch.dtype, weight_decay: float) -> None:
    values = lists(dtype)
    p, g, m, u = ([value.double().numpy().copy() for value in part] for part in values)
    ops.adamax_step(*values, rate=0.02, betas=(0.8, 0.9), eps=1e-3, weight_decay=weight_decay)
    tolerance = {"rtol": 2e-6, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-14, "atol": 1e-14}
    for i in range(len(SHAPES)):
        grad = g[i] + weight_decay * p[i]
        average = 0.8 * m[i] + 0.2 * grad
        largest = np.maximum(0.9 * u[i], np.abs(grad) + 1e-3)
        expected = (p[i] - 0.02 * average / largest, g[i], average, largest)
        for got, want in zip((part[i] for part in values), expected, strict=True):
            np.testing.assert_allclose(got.double().numpy(), want, **tolerance)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_a_small_gradient_after_a_large_one(backend: str, beta: float) -> None:
    """The average rounds in the size of what is in it, and not of the gradient that has left it."""
    values = [torch.zeros(40), torch.full((40,), 1e-5), torch.full((40,), 1000.0), torch.full((40,), 1000.0)]
    params, _, averages, _ = lists = [[value] for value in values]
    ops.adamax_step(*lists, rate=0.1, betas=(beta, 0.0), eps=1e-8)
    expected = beta * 1000 + (1 - beta) * 1e-5
    np.testing.assert_allclose(averages[0].numpy(), expected, rtol=2e-7)
    np.testing.assert_allclose(params[0].numpy(), -0.1 * expected / (1e-5 + 1e-8), rtol=1e-6)


def test_nan_in_a_gradient_reaches_the_parameter(backend: str) -> None:
    params, grads, averages, largest = lists(torch.float32, [(40,)])
    grads[0][3] = torch.nan
    ops.adamax_step(params, grads, averages, largest, rate=0.1)
    assert params[0].isnan().nonzero().tolist() == largest[0].isnan().nonzero().tolist() == [[3]]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last), torch.nn.Flatten(), torch.nn.Linear(20, 2)
    )


def train(optimizer: torch.optim.Optimizer, model: torch.nn.Module, steps: int) -> None:
    for i in range(steps):
        optimizer.zero_grad()
        (model(inputs.normal(i, (6, 3, 4, 4), torch.float32)) - 1).square().mean().backward()
        optimizer.step()


def assert_close(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # 8 float32 steps, in another order of operations


OPTIONS = [{}, {"lr": 0.1, "weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}, {"maximize": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_class_follows_pytorchs(backend: str, options: dict) -> None:
    mine, theirs = network(), network()
    train(optim.Adamax(mine.parameters(), **options), mine, 8)
    train(torch.optim.Adamax(theirs.parameters(), **options), theirs, 8)
    assert_close(mine, theirs)


def test_checkpoints_are_pytorchs(backend: str) -> None:
    """Half of a run by one class, half by the other, in both orders."""
    reference = network()
    train(torch.optim.Adamax(reference.parameters()), reference, 8)
    for first, second in ((optim.Adamax, torch.optim.Adamax), (torch.optim.Adamax, optim.Adamax)):
        model = network()
        optimizer = first(model.parameters())
        train(optimizer, model, 4)
        state = copy.deepcopy(optimizer.state_dict())
        optimizer = second(model.parameters())
        optimizer.load_state_dict(state)
        for i in range(4, 8):
            optimizer.zero_grad()
            (model(inputs.normal(i, (6, 3, 4, 4), torch.float32)) - 1).square().mean().backward()
            optimizer.step()
        assert_close(model, reference)


def test_parameter_without_gradient_keeps_its_count(backend: str) -> None:
    mine, theirs = network(), network()
    for model, cls in ((mine, optim.Adamax), (theirs, torch.optim.Adamax)):
        optimizer = cls(model.parameters())
        train(optimizer, model, 2)
        model[2].bias.requires_grad_(False)
        model[2].bias.grad = None
        train(optimizer, model, 3)
        model[2].bias.requires_grad_(True)
        train(optimizer, model, 2)
        counts = [float(state["step"]) for state in optimizer.state.values()]
        assert counts == [7.0, 7.0, 7.0, 4.0]
    assert_close(mine, theirs)


def test_closure(backend: str) -> None:
    """It runs with gradients on, once, and its value is returned."""
    model = network()
    optimizer = optim.Adamax(model.parameters())
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(inputs.normal(0, (6, 3, 4, 4), torch.float32)).square().mean()
        loss.backward()
        seen.append(loss)
        return loss

    assert optimizer.step(closure) is seen[0]
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda v: v[1].pop(), ValueError, "grads: got 1 tensors, expected 2"),
        (lambda v: v[2].__setitem__(1, torch.zeros(3)), ValueError, r"exp_avgs\[1\]: got shape \(3,\), expected that"),
        (lambda v: v[1].__setitem__(0, v[1][0].double()), TypeError, r"grads\[0\]: got dtype torch.float64"),
        (lambda v: v[0].__setitem__(0, v[0][0].half()), TypeError, r"params\[0\]: got dtype torch.float16, expected"),
    ],
)
def test_wrong_lists(change, error: type[Exception], text: str) -> None:
    values = lists(torch.float32, [(2,), (4,)])
    change(values)
    before = [value.clone() for part in values for value in part]
    with pytest.raises(error, match=text):
        ops.adamax_step(*values, rate=0.1)
    assert all(map(torch.equal, before, (value for part in values for value in part)))


def test_an_infinite_parameter_stays_where_its_gradient_is_zero(backend: str) -> None:
    """As a mask before a softmax; PyTorch's own step adds no decay of 0 to its gradient."""
    param, grad = torch.tensor([0.0, -torch.inf, 1.0]), torch.tensor([0.5, 0.0, -0.5])
    exp_avg, exp_inf = torch.zeros(3), torch.zeros(3)
    ops.adamax_step([param], [grad], [exp_avg], [exp_inf], rate=0.1)
    torch.testing.assert_close(param, torch.tensor([-0.01, -torch.inf, 1.01]))
    assert exp_avg.isfinite().all() and exp_inf.isfinite().all()
