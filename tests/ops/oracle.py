"""The operators in NumPy float64, written from their definitions and not from the code under test.

Each function returns :class:`~tests._tolerances.Expected` values: the exact result and the magnitude that its error is
relative to. ``test_oracle.py`` compares all of them with 50-digit arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from tests._tolerances import Expected, exactly, log_quantity

Array = np.ndarray
LOG_SLOPE = np.log(1e-3)
NFLOWS_EPS = 1e-3


def softplus(v: Array) -> Array:
    """``log(1 + exp(v))``."""
    return np.maximum(v, 0.0) + np.log1p(np.exp(-np.abs(v)))


def sigmoid(v: Array) -> Array:
    """The logistic function with a small relative error on both sides."""
    e = np.exp(-np.abs(v))
    return np.where(v >= 0, 1.0, e) / (1.0 + e)


def sech_squared(v: Array) -> Array:
    """Derivative of ``tanh``, without overflow and without ``1 - tanh**2``."""
    e = np.exp(-2.0 * np.abs(v))
    return 4.0 * e / (1.0 + e) ** 2


def _nflows_log_scale(a: Array) -> Array:
    v = a + 2.0
    near_one = np.log1p(NFLOWS_EPS - sigmoid(-np.abs(v)))
    return np.where(v > 0, near_one, np.log(sigmoid(v) + NFLOWS_EPS))


def _nflows_slope(a: Array) -> Array:
    v = a + 2.0
    return sigmoid(v) * sigmoid(-v) / (sigmoid(v) + NFLOWS_EPS)


class Form(NamedTuple):
    """One map of the field: log-scale and its derivative in the raw scale, how the shift enters, where both lie."""

    log_scale: Callable[[Array], Array] | None
    slope: Callable[[Array], Array] | None
    shift: str = "after"
    layout: str = "scale, shift"
    shift_gain: float = 1.0


def _tanh_form(clamp: float, gain: float, shift_gain: float = 1.0) -> Form:
    return Form(
        lambda a: clamp * np.tanh(gain * a), lambda a: clamp * gain * sech_squared(gain * a), shift_gain=shift_gain
    )


FORMS: dict[str, Form] = {
    "exp": Form(lambda a: a, np.ones_like),
    "glow": Form(lambda a: -softplus(-(a + 2.0)), lambda a: sigmoid(-(a + 2.0)), "before"),
    "additive": Form(None, None),
    "realnvp": _tanh_form(2.0, 0.5),
    "normflows": Form(
        lambda a: -softplus(-(a + 2.0)), lambda a: sigmoid(-(a + 2.0)), "subtract", "by turns: shift, scale"
    ),
    "nflows": Form(_nflows_log_scale, _nflows_slope, "after", "shift, scale"),
    "freia": Form(lambda a: 2.0 * 0.636 * np.arctan(a), lambda a: 2.0 * 0.636 / (1.0 + a * a)),
    "zuko": Form(lambda a: a / (1.0 + np.abs(a / LOG_SLOPE)), lambda a: (1.0 + np.abs(a / LOG_SLOPE)) ** -2.0),
    "zuko_maf": Form(
        lambda a: a / (1.0 + np.abs(a / LOG_SLOPE)),
        lambda a: (1.0 + np.abs(a / LOG_SLOPE)) ** -2.0,
        layout="by turns: shift, scale",
    ),
    "bounded": _tanh_form(1.0, 1.0),
    "normflows_sigmoid_inv": Form(
        lambda a: softplus(-(a + 2.0)), lambda a: -sigmoid(-(a + 2.0)), "subtract", "by turns: shift, scale"
    ),
    "normflows_exp": Form(lambda a: -a, lambda a: -np.ones_like(a), "subtract", "by turns: shift, scale"),
    "freia_tanh": _tanh_form(2.0, 1.0),
    "freia_sigmoid": _tanh_form(2.0, 0.5),
    "nflows_maf": Form(
        lambda a: np.log(softplus(a) + NFLOWS_EPS),
        lambda a: sigmoid(a) / (softplus(a) + NFLOWS_EPS),
        layout="by turns: scale, shift",
    ),
    "normflows_maf": Form(_nflows_log_scale, _nflows_slope, layout="by turns: scale, shift"),
    "freia_all_in_one": _tanh_form(2.0, 0.05, 0.1),
}


def split(params: Array, form: Form) -> tuple[Array | None, Array]:
    """Raw scale and raw shift."""
    channels = params.shape[1] // 2
    if form.log_scale is None:
        return None, params
    if form.layout.startswith("by turns"):
        first, second = params[:, 0::2], params[:, 1::2]
        return (first, second) if form.layout.endswith("scale, shift") else (second, first)
    first, second = params[:, :channels], params[:, channels:]
    return (first, second) if form.layout == "scale, shift" else (second, first)


def join(scale: Array | None, shift: Array, form: Form) -> Array:
    """The inverse of :func:`split`."""
    if scale is None:
        return shift
    pair = [scale, shift] if form.layout.endswith("scale, shift") else [shift, scale]
    if form.layout.startswith("by turns"):
        return np.stack(pair, axis=2).reshape(shift.shape[0], 2 * shift.shape[1], *shift.shape[2:])
    return np.concatenate(pair, axis=1)


def per_example(value: Array) -> Array:
    """Sum over everything but the batch."""
    return value.reshape(value.shape[0], int(np.prod(value.shape[1:], dtype=np.int64))).sum(axis=1)


class CouplingResult(NamedTuple):
    """Outputs of a coupling and gradients of a loss in its inputs."""

    y: Expected
    log_det: Expected
    grad_x: Expected
    grad_params: Expected


def affine_coupling(
    x: Array, params: Array, log_det: Array | None, grad_y: Array, grad_log_det: Array, name: str, inverse: bool
) -> CouplingResult:
    """Everything the coupling computes, given the loss gradients of its two outputs."""
    form = FORMS[name]
    raw_scale, raw_shift = split(params, form)
    sign = -1.0 if form.shift == "subtract" else 1.0
    t = form.shift_gain * sign * raw_shift
    log_s = np.zeros_like(x) if form.log_scale is None or raw_scale is None else form.log_scale(raw_scale)
    slope = np.zeros_like(x) if form.slope is None or raw_scale is None else form.slope(raw_scale)
    gl = grad_log_det.reshape(-1, *[1] * (x.ndim - 1)) * np.ones_like(x)
    after = form.shift == "after"
    signed = -log_s if inverse else log_s
    s = np.exp(signed)
    scale_sum = not after if not inverse else after  # (x + t)*s or (x - t)/s: the rounding of the sum is all there is
    shifted = x - t if inverse else x + t
    scaled = shifted * s if scale_sum else x * s
    y = scaled if scale_sum else (x * s - t if inverse else x * s + t)
    y_size = np.abs(y) if scale_sum and form.shift_gain == 1 else np.abs(x) * s + np.abs(t) * (s if scale_sum else 1)
    direction = -1.0 if inverse else 1.0
    grad_t = direction * sign * form.shift_gain * grad_y * (s if scale_sum else 1.0)
    grad_a = direction * (grad_y * scaled + gl) * slope
    grad_a_size = (np.abs(grad_y * scaled) + np.abs(gl)) * np.abs(slope)
    total = per_example(signed) + (0.0 if log_det is None else log_det)
    total_size = per_example(np.abs(log_s)) + (0.0 if log_det is None else np.abs(log_det))
    has_scale = raw_scale is not None
    grads = join(grad_a if has_scale else None, grad_t, form)
    sizes = join(grad_a_size if has_scale else None, np.abs(grad_t), form)
    return CouplingResult(
        Expected(y, y_size, False),
        log_quantity(total, total_size),
        exactly(grad_y * s),
        log_quantity(grads, sizes),
    )


class Density(NamedTuple):
    """Elementwise log-probability and its derivative in each argument, with the magnitudes of the derivatives."""

    value: Array
    grads: dict[str, Array]
    sizes: dict[str, Array]


def discretized_logistic(x: Array, mean: Array, log_scale: Array, bin_width: float) -> Density:
    """Log of ``sigma((d + bin/2)/s) - sigma((d - bin/2)/s)``, ``d = x - mean``.

    The difference of the two is taken in closed form. The derivative in ``d/s`` is ``-sinh u/(cosh u + cosh h)``,
    the one in ``h`` is ``coth h - sinh h/(cosh u + cosh h)``, both rewritten with exponentials of negative numbers.
    """
    distance = np.abs(x - mean)
    inverse = np.exp(-log_scale)
    u, h = distance * inverse, 0.5 * bin_width * inverse
    low, high = (distance - 0.5 * bin_width) * inverse, (distance + 0.5 * bin_width) * inverse
    log_mass = np.where(h > 0.1, np.log1p(-np.exp(-2.0 * h)), np.log(-np.expm1(-2.0 * np.minimum(h, 1.0))))
    inner, outer = np.exp(np.minimum(low, 0.0)), np.exp(-np.maximum(low, 0.0))
    slope = inner * np.expm1(-2.0 * u) / (inner * (1.0 + np.exp(-2.0 * u)) + outer * (1.0 + np.exp(-2.0 * h)))
    grad_x = np.sign(x - mean) * slope * inverse
    narrowing = 2.0 * h * np.exp(-2.0 * h) / -np.expm1(-2.0 * h)
    terms = (-narrowing, low * sigmoid(low), -high * sigmoid(-high))
    size = np.abs(terms[0]) + np.abs(terms[1]) + np.abs(terms[2])
    grads = {"x": grad_x, "mean": -grad_x, "log_scale": terms[0] + terms[1] + terms[2]}
    return Density(
        log_mass - softplus(low) - softplus(-high),
        grads,
        {"x": np.abs(grad_x), "mean": np.abs(grad_x), "log_scale": size},
    )


def mixture(x: Array, logits: Array, mean: Array, log_scale: Array, bin_width: float) -> Density:
    """Log of ``sum_k softmax(logits)_k P_k(x)``, the components at dim 1 of the parameters.

    With the responsibilities ``r_k = w_k P_k / sum_j w_j P_j`` the derivatives are ``r_k - w_k`` in the logits and
    ``r_k`` times the derivative of ``log P_k`` in the rest.
    """
    shape = np.broadcast_shapes(logits.shape, mean.shape, log_scale.shape, x[:, None].shape)
    each = discretized_logistic(*np.broadcast_arrays(np.broadcast_to(x[:, None], shape), mean, log_scale), bin_width)
    shifted = np.broadcast_to(logits, shape)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    weight = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    joint = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)) + each.value
    top = joint.max(axis=1, keepdims=True)
    likelihood = np.exp(joint - top)
    share = likelihood / likelihood.sum(axis=1, keepdims=True)
    grads = {name: share * grad for name, grad in each.grads.items()}
    sizes = {name: share * size for name, size in each.sizes.items()}
    grads["x"], sizes["x"] = grads["x"].sum(axis=1), sizes["x"].sum(axis=1)
    grads["logits"], sizes["logits"] = share - weight, share + weight
    return Density(top[:, 0] + np.log(likelihood.sum(axis=1)), grads, sizes)


def gaussian(x: Array, mean: Array, log_scale: Array) -> Density:
    """Log-density of independent normal variables with standard deviation ``exp(log_scale)``."""
    inverse = np.exp(-log_scale)
    z = (x - mean) * inverse
    value = -0.5 * np.log(2.0 * np.pi) - log_scale - 0.5 * z * z
    grads = {"x": -z * inverse, "mean": z * inverse, "log_scale": z * z - 1.0}
    return Density(value, grads, {"x": np.abs(z * inverse), "mean": np.abs(z * inverse), "log_scale": z * z + 1.0})


def rounded_shift(t: torch.Tensor, beta: torch.Tensor | None) -> Array:
    """``round(beta * t)``, the product formed in float32 unless ``t`` is float64; half to even."""
    working = np.float64 if t.dtype is torch.float64 else np.float32
    product = t.detach().double().cpu().numpy().astype(working)
    if beta is not None:
        product = beta.detach().double().cpu().numpy().astype(working).reshape(()) * product
    return np.rint(product).astype(np.float64)


def sum_to_shape(value: Array, shape: tuple[int, ...]) -> Array:
    """``value`` summed over the dimensions along which an argument of this shape was broadcast."""
    value = value.sum(axis=tuple(range(value.ndim - len(shape))))
    over = tuple(i for i, size in enumerate(shape) if size == 1 and value.shape[i] != 1)
    return value.sum(axis=over, keepdims=True)


def density_gradients(density: Density, grad: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Expected]:
    """Gradients of a loss in the arguments of those shapes, ``grad`` being its gradient in each log-probability.

    A gradient that is a sum over broadcast dimensions has the sum of the absolute terms as its magnitude.
    """
    out = {}
    for name, shape in shapes.items():
        own = density.grads[name]
        factor = np.expand_dims(grad, 1) if own.ndim > grad.ndim else grad
        terms, sizes = own * factor, density.sizes[name] * np.abs(factor)
        out[name] = log_quantity(sum_to_shape(terms, shape), sum_to_shape(sizes, shape))
    return out
