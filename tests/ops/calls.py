"""One typical call of every public operator, for the tests that treat all operators alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hybridkern import ops
from tests.ops import inputs


class Call(NamedTuple):
    """A function of tensors to a tuple of tensors, and a maker of its arguments for ``x`` of some shape."""

    function: Callable[..., tuple[Tensor, ...]]
    arguments: Callable[[tuple[int, ...], torch.dtype], dict[str, Tensor]]


def _affine(**options) -> Callable[..., tuple[Tensor, ...]]:
    return lambda x, params, log_det: ops.affine_coupling(x, params, log_det, **options)


def _affine_arguments(name: str) -> Callable[..., dict[str, Tensor]]:
    return lambda shape, dtype: {
        "x": inputs.normal(0, shape, dtype),
        "params": inputs.coupling_params(name, shape, dtype, reach=0.3),
        "log_det": inputs.normal(2, shape[:1], dtype),
    }


def _density_arguments(*names: str, shared: bool = False) -> Callable[..., dict[str, Tensor]]:
    def make(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
        own = (1, *shape[1:]) if shared else shape
        own = (own[0], 3, *own[1:]) if "logits" in names else own
        x = inputs.normal(0, shape, dtype, scale=2.0)
        return {"x": x} | {name: inputs.normal(i, own, dtype, scale=0.7) for i, name in enumerate(names, 1)}

    return make


def _rounding_arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        "x": inputs.normal(0, shape, dtype, scale=9.0).round(),
        "t": inputs.normal(1, shape, dtype, scale=3.0),
        "beta": torch.tensor([1.75], dtype=dtype),
    }


def _logistic(x, mean, log_scale):
    return (ops.discretized_logistic_log_prob(x, mean, log_scale, bin_width=0.5),)


def _logistic_sum(x, mean, log_scale):
    return (ops.discretized_logistic_log_prob(x, mean, log_scale, reduction="sum"),)


def _mixture(x, logits, mean, log_scale):
    return (ops.discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, bin_width=0.5),)


def _mixture_sum(x, logits, mean, log_scale):
    return (ops.discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, reduction="sum"),)


def _gaussian(x, mean, log_scale):
    return (ops.gaussian_log_prob(x, mean, log_scale),)


def _rounding(x, t, beta):
    return (ops.rounding_coupling(x, t, beta=beta),)


_PARAMS = ("mean", "log_scale")
CALLS: dict[str, Call] = {
    "glow": Call(_affine(form="glow"), _affine_arguments("glow")),
    "nflows_inverse": Call(_affine(form="nflows", inverse=True), _affine_arguments("nflows")),
    "additive": Call(_affine(form="additive"), _affine_arguments("additive")),
    "rounding": Call(_rounding, _rounding_arguments),
    "logistic": Call(_logistic, _density_arguments(*_PARAMS)),
    "logistic_sum_shared": Call(_logistic_sum, _density_arguments(*_PARAMS, shared=True)),
    "mixture": Call(_mixture, _density_arguments("logits", *_PARAMS)),
    "mixture_sum_shared": Call(_mixture_sum, _density_arguments("logits", *_PARAMS, shared=True)),
    "gaussian": Call(_gaussian, _density_arguments(*_PARAMS)),
    "gaussian_shared": Call(_gaussian, _density_arguments(*_PARAMS, shared=True)),
}


def differentiable(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs that depend on something that requires a gradient."""
    return [out for out in outputs if out.requires_grad]


def run(function: Callable[..., tuple[Tensor, ...]], args: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs ``out0, out1, ...`` and the gradients ``grad <name>`` of a weighted sum of all of them."""
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    outputs = function(*leaves.values())
    flowing = differentiable(outputs)
    torch.autograd.backward(flowing, [inputs.normal(20 + i, tuple(o.shape), o.dtype) for i, o in enumerate(flowing)])
    results = {f"out{i}": out.detach() for i, out in enumerate(outputs)}
    return results | {f"grad {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def assert_same_bits(got: dict[str, Tensor], expected: dict[str, Tensor], what: str = "") -> None:
    """Every result is equal, NaN to NaN, and has the same dtype."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype is value.dtype
        assert torch.equal(got[name].nan_to_num(nan=1234.5), value.nan_to_num(nan=1234.5)), f"{what} {name} differs"
