"""The NumPy oracle against 50-digit arithmetic on the points where float64 formulas usually break."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mpmath import mp, mpf

from tests.ops import mp_oracle, oracle

RELATIVE = 2e-13  # a fifth of the float64 tolerance of the operators
ABSOLUTE = 2e-13
RAW_SCALES = (-60.0, -20.5, -9.0, -2.0, -1.0, -1e-3, 0.0, 1e-9, 0.7, 4.906755, 4.9, 5.0, 12.0, 40.0)
SHIFTS = ((0.0, 0.0), (1.5, -0.25), (-3.0, 3.0), (1e-8, 2.0))
LOG_SCALES = (-10.0, -5.0, -1.0, 0.0, 0.5, 3.0, 10.0)
DISTANCES = (0.0, 1e-12, 1e-6, 0.3, 1.0, 17.0, 40.0, 700.0, 1e4)  # in units of the scale
BIN_WIDTHS = (1.0, 1 / 256, 2 / 255)


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mp.workdps(mp_oracle.DIGITS):
        yield


def assert_same(got, expected: mpf, size: float, what: str, absolute: float = 0.0) -> None:
    error = abs(mpf(float(got)) - expected)
    assert error <= max(RELATIVE * float(size), absolute, 1e-300), f"{what}: got {float(got)!r}, expected {expected}"


def scalar(value: float, channels: int = 1) -> np.ndarray:
    return np.full((1, channels), value)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_coupling_is_the_definition(name: str, inverse: bool) -> None:
    form = oracle.FORMS[name]
    for a, (x, t) in itertools.product(RAW_SCALES, SHIFTS):
        if form.log_scale is None:
            params = scalar(t)
        else:
            params = oracle.join(scalar(a), scalar(t), form)
        got = oracle.affine_coupling(scalar(x), params, None, scalar(0.75), np.array([-1.25]), name, inverse)
        args = (mpf(x), mpf(a), mpf(t))

        def loss(x, a, t):
            y, log_det = mp_oracle.coupling(name, x, a, t, inverse)
            return mpf(0.75) * y - mpf(1.25) * log_det

        y, log_det = mp_oracle.coupling(name, *args, inverse)
        grads = [mp_oracle.derivative(loss, args, index) for index in range(3)]
        where = f"{name} x={x} a={a} t={t}"
        assert_same(got.y.value[0, 0], y, got.y.magnitude[0, 0], where)
        assert_same(got.log_det.value[0], log_det, got.log_det.magnitude[0], where, ABSOLUTE)
        assert_same(got.grad_x.value[0, 0], grads[0], got.grad_x.magnitude[0, 0], where)
        raw, size = oracle.split(got.grad_params.value, form), oracle.split(got.grad_params.magnitude, form)
        assert_same(raw[1][0, 0], grads[2], size[1][0, 0], where)
        if raw[0] is not None:
            assert_same(raw[0][0, 0], grads[1], size[0][0, 0], where, ABSOLUTE)


def logistic_points(bin_width: float) -> list[tuple[float, float, float]]:
    """``(x, mean, log_scale)``: at multiples of the scale, and a hair on either side of the bin's edge."""
    points = []
    for log_scale in LOG_SCALES:
        distances = [u * np.exp(log_scale) for u in DISTANCES]
        distances += [0.5 * bin_width * (1 + hair) for hair in (-1e-3, -(2.0**-40), 0.0, 2.0**-40, 1e-3)]
        points += [(sign * distance, 0.0, log_scale) for distance in distances for sign in (1, -1)]
    return points + [(3.0, 2.5, -10.0), (100.25, 99.75, -9.0), (-7.0, -7.0, -10.0)]


@pytest.mark.parametrize("bin_width", BIN_WIDTHS)
def test_discretized_logistic_is_the_definition(bin_width: float) -> None:
    points = logistic_points(bin_width)
    x, mean, log_scale = (np.array(column) for column in zip(*points, strict=True))
    got = oracle.discretized_logistic(x, mean, log_scale, bin_width)
    for i, point in enumerate(points):
        args = tuple(map(mpf, point))
        exact = mp_oracle.discretized_logistic(*args, bin_width)
        assert_same(got.value[i], exact, abs(got.value[i]), f"log p at {point}", ABSOLUTE)
        for index, name in enumerate(("x", "mean", "log_scale")):
            if point[0] == point[1] and name != "log_scale":
                assert got.grads[name][i] == 0  # the maximum, where abs() has no derivative
                continue
            grad = mp_oracle.derivative(lambda *a: mp_oracle.discretized_logistic(*a, bin_width), args, index)
            assert_same(got.grads[name][i], grad, got.sizes[name][i], f"grad {name} at {point}", ABSOLUTE)


@pytest.mark.parametrize("components", [1, 3])
def test_mixture_is_the_definition(components: int) -> None:
    rng = np.random.default_rng(components)
    count = 12
    logits = rng.uniform(-50, 50, (count, components))
    mean = rng.normal(0, 3, (count, components))
    log_scale = rng.uniform(-6, 4, (count, components))
    x = np.where(np.arange(count) % 3 == 0, 300.0, 1.0) * rng.normal(0, 3, count)
    got = oracle.mixture(x, logits, mean, log_scale, 1 / 256)
    for i in range(count):
        args = (mpf(x[i]), *map(mpf, (*logits[i], *mean[i], *log_scale[i])))

        def log_p(x, *params):
            k = components
            return mp_oracle.mixture(x, params[:k], params[k : 2 * k], params[2 * k :], 1 / 256)

        assert_same(got.value[i], log_p(*args), abs(got.value[i]), "log p", ABSOLUTE)
        # the shares of components lose as many digits as their exponents have before the point
        loss = RELATIVE * float(max(1.0, abs(got.value[i]) * 1e-2))
        names = ["x"] + ["logits"] * components + ["mean"] * components + ["log_scale"] * components
        for index, name in enumerate(names):
            at = (i,) if name == "x" else (i, (index - 1) % components)
            exact = mp_oracle.derivative(log_p, args, index)
            assert_same(got.grads[name][at], exact, got.sizes[name][at] * loss / RELATIVE, name, ABSOLUTE)


def test_gaussian_is_the_definition() -> None:
    for point in itertools.product((-300.0, 0.0, 1.0, 2.5), (0.0, 1.0, 299.5), LOG_SCALES):
        got = oracle.gaussian(*map(np.array, point))
        args = tuple(map(mpf, point))
        with mp.workdps(400):
            exact = mp_oracle.gaussian(*args)
        size = 1.0 + abs(point[2]) + 0.5 * (point[0] - point[1]) ** 2 * np.exp(-2 * point[2])
        assert_same(got.value, exact, size, f"log p at {point}")
        for index, name in enumerate(("x", "mean", "log_scale")):
            grad = mp_oracle.derivative(mp_oracle.gaussian, args, index)
            assert_same(got.grads[name], grad, got.sizes[name], f"grad {name} at {point}", ABSOLUTE)
