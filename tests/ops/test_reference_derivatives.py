"""Derivatives of the reference formulas where differences cannot tell: jumps, far tails, ties.

All others are in the table of ``tests/derivatives``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mpmath import mp
from torch import Tensor
from torch.func import hessian, jvp, vmap

from hybridkern import ops
from tests._derivatives import F64, close
from tests.ops import mp_oracle

pytestmark = pytest.mark.usefixtures("reference_backend")


@pytest.mark.parametrize("number", [0.5, 1.5, 2.5, -0.5, -3.5, 1e30, torch.inf, -torch.inf, torch.nan])
def test_rounding_is_exact_in_every_transform(number: float) -> None:
    t = torch.full((1, 1), number, dtype=F64)
    zero = torch.zeros_like(t)
    expected = torch.round(t)
    for got in (
        ops.rounding_coupling(zero, t),
        vmap(ops.rounding_coupling)(zero[None], t[None])[0],
        jvp(lambda t: ops.rounding_coupling(zero, t), (t,), (t,))[0],
        vmap(lambda u: jvp(lambda u: ops.rounding_coupling(zero[0], u), (u,), (u,))[0])(t),
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_softsign_at_its_kink() -> None:
    """The second derivative of ``v / (1 + |v| / clamp)`` jumps at 0: what lies between both sides is taken."""

    def log_s(a: Tensor) -> Tensor:
        return ops.affine_coupling(torch.zeros(1, 1, dtype=F64), torch.stack([a, a])[None], form="zuko")[1][0]

    zero = torch.zeros((), dtype=F64)
    second = hessian(log_s)
    sides = second(zero + 1e-12) + second(zero - 1e-12)
    assert second(zero) == 0 and abs(sides) < 1e-10 < abs(second(zero + 1e-12))


SECOND = [  # bin, x - mean, log_scale: ties, both tails, narrow and wide bins, the far ends of the scale
    (1.0, 0.0, 0.0), (1.0, 0.0, -3.0), (1.0, 0.0, 8.0), (1e-3, 0.0, 1.0), (0.5, 1e-9, 0.3), (1.0, 0.5, 0.0),
    (1.0, -0.5, -2.0), (1.0, 45.0, 0.0), (1.0, -45.0, 0.0), (1e-2, 60.0, 0.4), (1e-2, -60.0, 0.4), (1.0, 700.0, 0.0),
    (1.0, 3.0, -4.0), (1.0, 0.499, -6.0), (1.0, 2.0, 20.0), (1.0, 0.0, 40.0), (1e-6, 1e-7, -14.0), (0.01, 0.3, 0.0),
]  # fmt: skip


def _second_derivatives(bin_width: float, distance: float, log_scale: float) -> list[list[float]]:
    """Of the logistic in ``x`` and ``log_scale``, in arithmetic of many digits."""

    def log_mass(d: mp.mpf, s: mp.mpf) -> mp.mpf:
        half, scale = mp.mpf(bin_width) / 2, mp.exp(s)
        return mp.log(1 / (1 + mp.exp(-(d + half) / scale)) - 1 / (1 + mp.exp(-(d - half) / scale)))

    with mp.workdps(800):
        at = (mp.mpf(distance), mp.mpf(log_scale))
        xx, xs, ss = (mp.diff(log_mass, at, order) for order in ((2, 0), (1, 1), (0, 2)))
        return [[float(xx), float(xs)], [float(xs), float(ss)]]


@pytest.mark.parametrize(("bin_width", "distance", "log_scale"), SECOND)
def test_second_derivatives_of_the_logistic(bin_width: float, distance: float, log_scale: float) -> None:
    expected = torch.tensor(_second_derivatives(bin_width, distance, log_scale), dtype=F64)
    at = torch.tensor([distance, log_scale], dtype=F64)
    x, mean = torch.zeros((), dtype=F64), torch.zeros((), dtype=F64)

    def log_p(at: Tensor) -> Tensor:
        return ops.discretized_logistic_log_prob((x + at[0])[None], mean[None], at[1][None], bin_width=bin_width)[0]

    def by_the_mean(at: Tensor) -> Tensor:
        return ops.discretized_logistic_log_prob(x[None], (mean - at[0])[None], at[1][None], bin_width=bin_width)[0]

    for function in (log_p, by_the_mean):
        for way in (hessian, lambda f: lambda at: torch.autograd.functional.hessian(f, at)):
            # in units of the scale; the curvature along x is precise, relatively, in the far tails too
            unit = torch.tensor([torch.exp(-at[1]), 1.0], dtype=F64)
            got, wanted = (value / unit[:, None] / unit for value in (way(function)(at), expected))
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-15)
            torch.testing.assert_close(got[0, 0], wanted[0, 0], rtol=1e-9, atol=0)


def _grads(function: Callable[..., Tensor], *arguments: Tensor) -> list[Tensor]:
    leaves = [value.clone().requires_grad_() for value in arguments]
    return list(torch.autograd.grad(function(*leaves).sum(), leaves))


@pytest.mark.parametrize("log_scale", [0.0, -69.0, -200.0])
@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0], [0.0, 1.0, -2.0]], ids=["even", "uneven"])
def test_mixture_of_components_that_tie_far_out(logits: list[float], log_scale: float) -> None:
    """Their log-probabilities are so large that their number's logarithm is nothing beside them: the weights share."""
    x, weights = torch.tensor([[1e30]], dtype=F64), torch.softmax(torch.tensor(logits, dtype=F64), 0)
    parameters = [
        torch.tensor(value, dtype=F64).reshape(1, 3, 1) for value in (logits, [0.0, 1.0, 2.0], [log_scale] * 3)
    ]
    of_x, of_logits, of_mean, of_scale = _grads(ops.discretized_logistic_mixture_log_prob, x, *parameters)
    slope, growth = _grads(
        lambda x, s: ops.discretized_logistic_log_prob(x, torch.zeros_like(x), s), x, parameters[2][:, 0]
    )
    close(of_x, slope, 1e-12)
    close(of_mean.flatten(), -weights * slope.flatten(), 1e-12)
    close(of_scale.flatten(), weights * growth.flatten(), 1e-12)
    close(of_logits, torch.zeros_like(of_logits), 1e-12)


@pytest.mark.parametrize("far", [40.0, 1e12, 1e18])
def test_mixture_far_out_by_its_definition(far: float) -> None:
    """Differences of 130 digits: components that tie, and one that is out of reach of the others."""
    rows = [[0.3, -1.0, 0.0], [0.0, 0.0, -far / 8], [0.0, 0.0, 0.0]]  # logits, means, log-scales
    x, parameters = torch.tensor([[far]], dtype=F64), [torch.tensor(row, dtype=F64).reshape(1, 3, 1) for row in rows]
    got = torch.stack(_grads(lambda *p: ops.discretized_logistic_mixture_log_prob(x, *p), *parameters)).flatten()

    def log_p(*values: mp.mpf) -> mp.mpf:
        return mp_oracle.mixture(mp.mpf(far), values[:3], values[3:6], values[6:], 1.0)

    flat_rows = [mp.mpf(value) for row in rows for value in row]
    expected = [float(mp_oracle.derivative(log_p, flat_rows, index)) for index in range(9)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=F64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("log_scale", [-70.0, -300.0, 61.0, 90.0])
def test_scales_beyond_the_bounds_keep_their_gradient(log_scale: float) -> None:
    """Beyond the bounds the scale is held, and the gradient is that at the bound."""
    bound = min(max(log_scale, -69.0), 60.0)
    x, mean = torch.tensor([[3.0], [0.25]], dtype=F64), torch.zeros(2, 1, dtype=F64)
    beyond, at_bound = (torch.full((2, 1), value, dtype=F64) for value in (log_scale, bound))
    for ours, theirs in zip(
        _grads(ops.discretized_logistic_log_prob, x, mean, beyond),
        _grads(ops.discretized_logistic_log_prob, x, mean, at_bound),
        strict=True,
    ):
        close(ours, theirs, 1e-12)
    assert log_scale > 0 or _grads(ops.discretized_logistic_log_prob, x, mean, beyond)[2][0] > 1e29


def test_no_derivative_is_nan_at_infinity_or_at_the_bounds() -> None:
    """First and second derivatives where a factor is 0 and another infinite."""
    numbers = [0.0, 1.0, -1e30, 1e200]
    scales = [0.0, -69.0, -1e30, -800.0, 60.0, 1e30]
    for x in (*numbers, torch.inf, -torch.inf):
        for log_scale in scales:
            at = torch.tensor([x, log_scale], dtype=F64)
            for function in (ops.discretized_logistic_log_prob, ops.gaussian_log_prob):
                if function is ops.gaussian_log_prob and not abs(x) < 1e20:
                    continue  # its square overflows
                of = lambda at, f=function: f(at[:1, None], torch.zeros(1, 1, dtype=F64), at[1:, None]).sum()  # noqa: E731
                assert not torch.autograd.functional.jacobian(of, at).isnan().any(), (function, x, log_scale)
