"""One call of an operator, held against the oracle: outputs, gradients, memory format, inputs left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridkern import ops
from tests._tolerances import Expected, assert_matches, exactly, log_quantity, to_numpy
from tests.ops import inputs, oracle

Args = dict[str, Tensor]
Layout = Callable[[Tensor], Tensor]


def as_it_is(value: Tensor) -> Tensor:
    """The layout that changes nothing."""
    return value


def leaves_of(args: Args) -> Args:
    """Differentiable leaves that share the memory, and so the strides, of ``args``."""
    return {name: value.detach().requires_grad_() for name, value in args.items()}


def assert_unchanged(args: Args, copies: Args) -> None:
    """An operator never writes to its inputs."""
    for name, copy in copies.items():
        assert torch.equal(args[name].detach(), copy), f"{name} was changed"


def assert_strides_like(y: Tensor, x: Tensor) -> None:
    """``y`` lies as ``torch.empty_like(x)`` would; dimensions of one element have no stride worth comparing."""
    wanted = torch.empty_like(x.detach()).stride()
    differing = [i for i, size in enumerate(x.shape) if size > 1 and y.stride(i) != wanted[i]]
    assert x.numel() == 0 or not differing, f"strides {y.stride()}, expected {wanted} as empty_like of {x.stride()}"


def check_coupling(args: Args, name: str, inverse: bool, grad_layout: Layout = as_it_is) -> None:
    """``args``: ``x``, ``params`` and perhaps ``log_det``."""
    copies = {key: value.clone() for key, value in args.items()}
    leaves = leaves_of(args)
    y, log_det = ops.affine_coupling(**leaves, form=name, inverse=inverse)
    grad_y = grad_layout(inputs.normal(9, tuple(y.shape), y.dtype))
    grad_log_det = inputs.normal(10, tuple(log_det.shape), log_det.dtype)
    outputs = [pair for pair in ((y, grad_y), (log_det, grad_log_det)) if pair[0].requires_grad]
    torch.autograd.backward(*zip(*outputs, strict=True))
    given = to_numpy(args["log_det"]) if "log_det" in args else None
    expected = oracle.affine_coupling(
        to_numpy(args["x"]), to_numpy(args["params"]), given, to_numpy(grad_y), to_numpy(grad_log_det), name, inverse
    )
    assert_matches(y, expected.y, "y")
    assert_matches(log_det, expected.log_det, "log_det")
    assert_matches(leaves["x"].grad, expected.grad_x, "grad x")
    assert_matches(leaves["params"].grad, expected.grad_params, "grad params")
    if given is not None:
        assert torch.equal(leaves["log_det"].grad, grad_log_det.to(args["log_det"].dtype))
    assert_strides_like(y, args["x"])
    assert_unchanged(args, copies)


def check_density(function, formula, args: Args, options: dict, grad_layout: Layout = as_it_is) -> None:
    """``formula`` takes the numbers of ``args`` and ``bin_width``, where there is one."""
    copies = {key: value.clone() for key, value in args.items()}
    leaves = leaves_of(args)
    got = function(**leaves, **options)
    numbers = [to_numpy(value) for value in args.values()]
    density = formula(*numbers, *(value for name, value in options.items() if name == "bin_width"))
    summed = options.get("reduction", "sum") == "sum"
    if summed:
        value = log_quantity(oracle.per_example(density.value), oracle.per_example(np.abs(density.value)))
    else:
        value = log_quantity(density.value)
        assert_strides_like(got, args["x"])
    assert_matches(got, value, "log p")
    grad = inputs.normal(11, tuple(got.shape), got.dtype)
    grad = grad if summed else grad_layout(grad)
    got.backward(grad)
    upstream = to_numpy(grad).reshape(grad.shape + (1,) * (density.value.ndim - grad.ndim))
    shapes = {name: tuple(value.shape) for name, value in args.items()}
    upstream = np.broadcast_to(upstream, density.value.shape)
    for name, expected in oracle.density_gradients(density, upstream, shapes).items():
        assert_matches(leaves[name].grad, expected, f"grad {name}")
    assert_unchanged(args, copies)


def check_logistic(args: Args, bin_width: float = 1.0, reduction: str = "none", grad_layout: Layout = as_it_is) -> None:
    """``args``: ``x``, ``mean``, ``log_scale``."""
    options = {"bin_width": bin_width, "reduction": reduction}
    check_density(ops.discretized_logistic_log_prob, oracle.discretized_logistic, args, options, grad_layout)


def check_mixture(args: Args, bin_width: float = 1.0, reduction: str = "none", grad_layout: Layout = as_it_is) -> None:
    """``args``: ``x``, ``logits``, ``mean``, ``log_scale``."""
    options = {"bin_width": bin_width, "reduction": reduction}
    check_density(ops.discretized_logistic_mixture_log_prob, oracle.mixture, args, options, grad_layout)


def check_gaussian(args: Args) -> None:
    """``args``: ``x`` and perhaps ``mean`` and ``log_scale``."""
    names = list(args)

    def formula(*numbers: np.ndarray) -> oracle.Density:
        given = dict(zip(names, numbers, strict=True))
        zero = np.zeros_like(given["x"])
        return oracle.gaussian(given["x"], given.get("mean", zero), given.get("log_scale", zero))

    check_density(ops.gaussian_log_prob, formula, args, {})


def check_rounding(args: Args, inverse: bool = False, grad_layout: Layout = as_it_is) -> None:
    """``args``: ``x``, ``t`` and perhaps ``beta``; ``y`` must be equal, not near, when ``x`` holds integers."""
    copies = {key: value.clone() for key, value in args.items()}
    leaves = leaves_of(args)
    y = ops.rounding_coupling(**leaves, inverse=inverse)
    sign = -1.0 if inverse else 1.0
    expected = to_numpy(args["x"]) + sign * oracle.rounded_shift(args["t"], args.get("beta"))
    assert np.array_equal(to_numpy(y), expected)
    assert_strides_like(y, args["x"])
    grad = grad_layout(inputs.normal(12, tuple(y.shape), y.dtype))
    y.backward(grad)
    beta = to_numpy(args["beta"]).reshape(()) if "beta" in args else np.ones(())
    upstream, t = to_numpy(grad), to_numpy(args["t"])
    assert torch.equal(leaves["x"].grad, grad)
    assert_matches(leaves["t"].grad, exactly(sign * upstream * beta), "grad t")
    if "beta" in args:
        terms = (sign * upstream * t).ravel()
        shape = args["beta"].shape
        total = Expected(terms.sum().reshape(shape), np.abs(terms).sum().reshape(shape), True)
        assert_matches(leaves["beta"].grad, total, "grad beta")
    assert_unchanged(args, copies)


def _product(equation: str, a: np.ndarray, b: np.ndarray, extra: np.ndarray | float = 0.0) -> Expected:
    """A sum of products; its magnitude is the sum of their absolute values."""
    return Expected(np.einsum(equation, a, b) + extra, np.einsum(equation, abs(a), abs(b)) + np.abs(extra), True)


def _halves(expected: Expected) -> list[Expected]:
    parts = (np.split(part, 2, axis=1) for part in expected[:2])
    return [Expected(value, magnitude, True) for value, magnitude in zip(*parts, strict=True)]


def check_paired_conv1x1(args: Args, grad_layout: Layout = as_it_is) -> None:
    """``args``: ``first``, ``second``, ``weight`` and ``bias``."""
    copies = {name: value.clone() for name, value in args.items()}
    leaves = leaves_of(args)
    out = ops.paired_conv1x1(**leaves)
    grads = [grad_layout(inputs.normal(5 + i, tuple(part.shape), part.dtype)) for i, part in enumerate(out)]
    torch.autograd.backward(out, grads)
    x = np.concatenate([to_numpy(args["first"]), to_numpy(args["second"])], 1)
    g = np.concatenate([to_numpy(grad) for grad in grads], 1)
    weight, bias = to_numpy(args["weight"]), to_numpy(args["bias"])
    flat_x, flat_g = (value.reshape(*value.shape[:2], int(np.prod(value.shape[2:]))) for value in (x, g))
    y = _product("oi,bi...->bo...", weight, x, bias.reshape(-1, *(1,) * (x.ndim - 2)))
    for i, (part, expected) in enumerate(zip(out, _halves(y), strict=True)):
        assert_matches(part, expected, f"half {i}")
        assert_strides_like(part, args["second" if i else "first"])
    for name, expected in zip(("first", "second"), _halves(_product("oi,bo...->bi...", weight, g)), strict=True):
        assert_matches(leaves[name].grad, expected, f"grad {name}")
    assert_matches(leaves["weight"].grad, _product("bop,bip->oi", flat_g, flat_x), "grad weight")
    assert_matches(leaves["bias"].grad, _product("bop,bp->o", flat_g, np.ones_like(flat_g[:, 0])), "grad bias")
    assert_unchanged(args, copies)
