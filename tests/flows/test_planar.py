"""What is particular to planar flows: the constraint, the numerical inverse, and strong maps."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import nn

from hybridkern.flows import Planar
from hybridkern.transforms.planar import LEAST_SLOPE, PlanarMap, _solve


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 300.0])
def test_slope_stays_positive_whatever_the_parameters(scale: float) -> None:
    torch.manual_seed(0)
    for _ in range(50):
        layer = PlanarMap(3)
        with torch.no_grad():
            layer.u.normal_().mul_(scale)
            layer.w.normal_().mul_(scale)
        u, c = layer.direction()
        assert c.item() >= -1 + 0.99 * LEAST_SLOPE
        assert (u.double() @ layer.w.double()).item() == pytest.approx(c.item(), rel=1e-3, abs=1e-5 * scale**2)


def test_formula_and_determinant() -> None:
    torch.manual_seed(0)
    layer = PlanarMap(3).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    y, log_det = layer(x)
    u, _ = layer.direction()
    h = torch.tanh(x @ layer.w + layer.b)
    torch.testing.assert_close(y, x + h[:, None] * u, rtol=1e-14, atol=1e-14)
    identity = torch.eye(3, dtype=torch.float64)
    for row in range(4):
        jacobian = identity + torch.outer(u, layer.w) * (1 - h[row] ** 2)
        torch.testing.assert_close(log_det[row], torch.logdet(jacobian), rtol=1e-12, atol=1e-12)


def test_zero_parameters_are_the_identity() -> None:
    layer = PlanarMap(3)
    x = torch.randn(4, 3)
    with torch.no_grad():
        layer.u.zero_()
    torch.testing.assert_close(layer(x)[0], x, rtol=0, atol=1e-6)
    with torch.no_grad():
        layer.u.fill_(1.0)
        layer.w.zero_()
    y, log_det = layer(x)
    assert y.isfinite().all() and log_det.abs().max() < 1e-6
    y.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("c", [-1 + LEAST_SLOPE, -0.9, -0.1, 0.0, 0.5, 40.0, 1e4])
def test_scalar_equation_to_full_precision(c: float) -> None:
    targets = [-1e3, -41.0, -3.0, -0.7, -1e-4, 0.0, 1e-9, 0.2, 5.0, 39.9, 1e5]
    roots = _solve(torch.tensor(targets, dtype=torch.float64), torch.full((len(targets),), c, dtype=torch.float64))
    with mpmath.workdps(40):
        for target, root in zip(targets, roots.tolist(), strict=True):
            a, big = mpmath.mpf(root), mpmath.mpf(c)
            error = a + big * mpmath.tanh(a) - target
            slope = 1 + big * mpmath.sech(a) ** 2
            # the error of the root in units of what rounding the two terms of the equation does to it
            allowed = 4e-16 * (abs(a) + abs(big * mpmath.tanh(a)) + abs(target)) / slope + 4e-16 * abs(a)
            assert abs(error / slope) <= allowed + mpmath.mpf(10) ** -300, (target, root)


def test_round_trip_of_strong_maps() -> None:
    torch.manual_seed(0)
    flow = Planar(2, layers=6).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_().mul_(3)
    x = 4 * torch.randn(500, 2, dtype=torch.float64)
    z, log_det = flow(x)
    back, back_log_det = flow.inverse(z)
    # layer by layer slopes of down to 1e-3 multiply the rounding of z
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-5)


def test_gradients_of_the_inverse() -> None:
    torch.manual_seed(0)
    flow = Planar(2, layers=2).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, *_: flow.inverse(z), (z, *flow.parameters()))
    assert torch.autograd.gradcheck(lambda z, *_: flow(z), (z, *flow.parameters()))


def test_density_integrates_to_one() -> None:
    torch.manual_seed(0)
    flow = Planar(1, layers=3).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_().mul_(1.5)
    x = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    mass = torch.trapezoid(flow.log_prob(x).detach().exp(), x[:, 0])
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_initialize_lays_the_bends_over_the_data() -> None:
    torch.manual_seed(0)
    flow, x = Planar(2, layers=5).double(), 3 + 2 * torch.randn(400, 2, dtype=torch.float64)
    flow.initialize(x, generator=torch.Generator().manual_seed(1))
    for layer in flow.maps:
        a = x @ layer.w + layer.b
        assert a.std().item() == pytest.approx(2)
        assert a.abs().min().item() < 1e-12  # the bend is at a row
    again = Planar(2, layers=5).double()
    again.load_state_dict(flow.state_dict())
    again.initialize(x, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(flow.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_initialize_lays_the_bends_over_the_data_under_their_conditions() -> None:
    torch.manual_seed(0)
    x, context = 3 + 2 * torch.randn(400, 2, dtype=torch.float64), torch.randn(400, 3, dtype=torch.float64)
    for embedding in (3, nn.Sequential(nn.Linear(3, 4), nn.Tanh())):
        flow = Planar(2, layers=5, context=embedding).double()
        flow.initialize(x, context)
        seen = context if flow.embedding is None else flow.embedding(context)
        for layer in flow.maps:
            _, w, b = layer.condition(seen).split((2, 2, 1), 1)
            along = ((layer.w + w) * x).sum(1)
            assert along.std().item() == pytest.approx(2)
            assert (along + layer.b + b[:, 0]).abs().min().item() < 1e-12  # the bend is at a row, with its condition
        with pytest.raises(ValueError, match="context: got None"):
            flow.initialize(x)


def test_initialize_needs_rows_that_vary() -> None:
    flow = Planar(2)
    before = [parameter.clone() for parameter in flow.parameters()]
    for x in (torch.ones(1, 2), torch.ones(5, 2)):
        with pytest.raises(ValueError, match=r"x: got \d rows of standard deviation 0, expected rows that vary"):
            flow.initialize(x)
    with pytest.raises(ValueError, match="x: got nan in row 0, dimension 0 and 9 more of 10 values, expected finite"):
        flow.initialize(torch.full((5, 2), float("nan")))
    assert all(map(torch.equal, flow.parameters(), before)), "nothing was changed"
    with pytest.raises(ValueError, match=r"x: got shape \(5, 3\)"):
        flow.initialize(torch.randn(5, 3))
