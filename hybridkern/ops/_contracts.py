"""What each registered operator asks of its arguments, for the kernels that are not C++: fakes and Triton launchers.

``torch.ops.hybridkern.*`` can be called past the public functions. The C++ kernels check for themselves (csrc/check.h);
these are the same rules, by the names of the schemas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hybridkern import _tensors as _check
from hybridkern.ops import _rules
from hybridkern.ops._rules import Sizes


def _coupling(main: str, x: Tensor, params: Tensor, code: int) -> None:
    _check.check_tensor(main, x)
    _rules.at_least(main, x, 2)
    scale, shift, layout = code & 15, (code >> 4) & 15, (code >> 8) & 15
    if not (0 <= code < 1 << 14 and scale <= 5 and shift <= 2 and layout <= 2):
        raise ValueError(f"code: got {code}, expected CouplingForm.code(inverse)")
    _check.check_param("params", params, x, main)
    _rules.shape("params", params, (x.shape[0], x.shape[1] * (2 if scale else 1), *x.shape[2:]))


def _coupling_forward(x: Tensor, params: Tensor, log_det: Tensor | None, code: int, *numbers: float) -> None:
    _coupling("x", x, params, code)
    _rules.totals("log_det", log_det, "x", x)


def _coupling_backward(
    known: Tensor, params: Tensor, grad_y: Tensor | None, grad_log_det: Tensor | None, code: int, *rest: Any, **_: Any
) -> None:
    _coupling("known", known, params, code)
    if grad_y is not None:
        _rules.same("grad_y", grad_y, "known", known)
    _rules.totals("grad_log_det", grad_log_det, "known", known)


def _rounding(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool, main: str = "x") -> None:
    _check.check_tensor(main, x)
    _rules.at_least(main, x, 1)
    _check.check_param("t", t, x, main)
    _rules.shape("t", t, x.shape)
    if beta is not None:
        _check.check_tensor("beta", beta)
        _check.check_same_device("beta", beta, x, main)
        _rules.shape("beta", beta, (1,) * beta.ndim)


def _rounding_backward(grad: Tensor, t: Tensor, beta: Tensor, inverse: bool) -> None:
    _rounding(grad, t, beta, inverse, "grad")


def _shared_param(name: str, value: Tensor, x: Tensor, wanted: Sizes) -> None:
    _check.check_param(name, value, x)
    first = value.shape[0] if value.ndim else 0
    _rules.shape(name, value, wanted if not isinstance(first, int) or first != 1 else (1, *wanted[1:]))


def _density(x: Tensor, named: dict[str, Tensor | None], wanted: Sizes) -> None:
    first: Tensor | None = None
    for name, value in named.items():
        if value is not None and first is None:
            _shared_param(name, first := value, x, wanted)
        elif value is not None and first is not None:
            _check.check_param(name, value, x)
            _rules.shape(name, value, first.shape)


def _density_x(x: Tensor) -> None:
    _check.check_tensor("x", x)
    _rules.at_least("x", x, 1)


def _density_grad(grad: Tensor, x: Tensor, reduce: bool) -> None:
    if reduce:
        _rules.totals("grad", grad, "x", x)
    else:
        _rules.same("grad", grad, "x", x)


def _logistic(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> None:
    _density_x(x)
    _density(x, {"mean": mean, "log_scale": log_scale}, x.shape)


def _logistic_backward(grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, width: float, reduce: bool) -> None:
    _logistic(x, mean, log_scale, width, reduce)
    _density_grad(grad, x, reduce)


def _mixture(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> None:
    _density_x(x)
    _rules.at_least("logits", logits, 2)
    named: dict[str, Tensor | None] = {"logits": logits, "mean": mean, "log_scale": log_scale}
    _density(x, named, (x.shape[0], logits.shape[1], *x.shape[1:]))
    if isinstance(logits.shape[1], int) and logits.shape[1] < 1:
        raise ValueError("logits: got 0 components at dim 1, expected at least 1")


def _mixture_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    _mixture(x, *rest)
    _density_grad(grad, x, rest[-1])


def _gaussian(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> None:
    _density_x(x)
    _density(x, {"mean": mean, "log_scale": log_scale}, x.shape)


def _gaussian_backward(grad: Tensor, x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> None:
    _gaussian(x, mean, log_scale)
    _rules.totals("grad", grad, "x", x)


def _halves(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _check.check_tensor("first", first)
    _rules.at_least("first", first, 2)
    _rules.same("second", second, "first", first)
    channels = 2 * first.shape[1]
    for name, value, shape in (("weight", weight, (channels, channels)), ("bias", bias, (channels,))):
        if value is None:
            continue
        if value.dtype is not _check.total_dtype(first):
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {_check.total_dtype(first)}")
        _check.check_same_device(name, value, first, "first")
        _rules.shape(name, value, shape)


def _halves_backward(grad_first: Tensor, grad_second: Tensor, first: Tensor, second: Tensor, weight: Tensor) -> None:
    _halves(first, second, weight, None)
    _rules.same("grad_first", grad_first, "first", first)
    _rules.same("grad_second", grad_second, "first", first)


def _factor(beta: Tensor, index: int, main: str, x: Tensor) -> None:
    _rules.same("beta", beta, main, x, beta.shape)
    if beta.ndim != 1:
        raise ValueError(f"beta: got shape {_check.shape_text(beta.shape)}, expected one dimension")
    if isinstance(index, int) and isinstance(beta.shape[0], int) and not 0 <= index < beta.shape[0]:
        raise ValueError(f"index: got {index}, expected one of the {beta.shape[0]} places of beta")


def _mirrored(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> None:
    _rules.working("a", a, 2)
    _rules.same("b", b, "a", a)
    _rules.same("t", t, "a", a)
    _factor(beta, index, "a", a)


def _mirrored_backward(first: Tensor, second: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> None:
    _rules.working("t", t, 2)
    _rules.same("first", first, "t", t)
    _rules.same("second", second, "t", t)
    _factor(beta, index, "t", t)


def _actnorm(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor | None, *form: Any) -> None:
    _rules.working("x", x, 2)
    width = x.shape[1]
    if params.ndim != 2:
        raise ValueError(f"params: got shape {_check.shape_text(params.shape)}, expected (B, 2n)")
    _rules.same("params", params, "x", x, (x.shape[0], params.shape[1]))
    if isinstance(params.shape[1], int) and isinstance(width, int):
        coupled, odd = divmod(params.shape[1], 2)
        if odd or not 1 <= coupled <= width:
            raise ValueError(
                f"params: got shape {_check.shape_text(params.shape)}, expected (B, 2n) with n in 1 .. {width}"
            )
    _rules.same("scale", scale, "x", x, (width,))
    if offset is not None:
        _rules.same("offset", offset, "x", x, (width,))


def _actnorm_backward(grad_y: Tensor, grad_log_det: Tensor, x: Tensor, params: Tensor, scale: Tensor, *f: Any) -> None:
    _actnorm(x, params, scale, None)
    _rules.same("grad_y", grad_y, "x", x)
    _rules.totals("grad_log_det", grad_log_det, "x", x)


def _network(x: Tensor, *rest: Any) -> None:
    _rules.working("x", x, 4)
    w1, b1, w2, b2, w3, b3 = rest[:6]
    hidden, out = (value.shape[0] if value.ndim else 0 for value in (w1, w3))
    _rules.same("w1", w1, "x", x, (hidden, x.shape[1], 3, 3))
    _rules.same("b1", b1, "x", x, (hidden,))
    _rules.same("w2", w2, "x", x, (hidden, hidden, 1, 1))
    _rules.same("b2", b2, "x", x, (hidden,))
    _rules.same("w3", w3, "x", x, (out, hidden, 3, 3))
    _rules.same("b3", b3, "x", x, (out,))


def _network_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    _network(x, *rest)
    _rules.same("grad", grad, "x", x, (x.shape[0], rest[4].shape[0], *x.shape[2:]))
    padded = (rest[0].shape[0] + 31) // 32 * 32
    for name, kept in (("hidden1", rest[6]), ("hidden2", rest[7])):
        if kept.ndim != 3:
            raise ValueError(f"{name}: got shape {_check.shape_text(kept.shape)}, expected three dimensions")
        if not isinstance(kept.shape[0], int) or kept.shape[0] > 0:
            _rules.shape(name, kept, (kept.shape[0], kept.shape[1], padded))


def _adamax(params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_infs: list[Tensor], *n: Any) -> None:
    for name, values in (("grads", grads), ("exp_avgs", exp_avgs), ("exp_infs", exp_infs)):
        if len(values) != len(params):
            raise ValueError(f"{name}: got {len(values)} tensors, expected {len(params)}, one for each of params")
        for i, (value, param) in enumerate(zip(values, params, strict=True)):
            _rules.same(f"{name}[{i}]", value, f"params[{i}]", param)


CONTRACTS: dict[str, Callable[..., None]] = {
    "adamax_step": _adamax,
    "affine_coupling_forward": _coupling_forward,
    "affine_coupling_backward": _coupling_backward,
    "affine_coupling_backward_from_output": _coupling_backward,
    "affine_coupling_actnorm_forward": _actnorm,
    "affine_coupling_actnorm_backward": _actnorm_backward,
    "coupling_network_forward": _network,
    "coupling_network_backward": _network_backward,
    "discretized_logistic_forward": _logistic,
    "discretized_logistic_backward": _logistic_backward,
    "discretized_logistic_mixture_forward": _mixture,
    "discretized_logistic_mixture_backward": _mixture_backward,
    "gaussian_log_prob_forward": _gaussian,
    "gaussian_log_prob_backward": _gaussian_backward,
    "paired_conv1x1_forward": _halves,
    "paired_conv1x1_backward": _halves_backward,
    "rounding_coupling_forward": _rounding,
    "rounding_coupling_backward": _rounding_backward,
    "rounding_coupling_mirrored_forward": _mirrored,
    "rounding_coupling_mirrored_backward": _mirrored_backward,
}


def checked(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel of operator ``name``, called only with arguments that fit."""
    contract = CONTRACTS[name]

    def run(*args: Any, **named: Any) -> Any:
        contract(*args, **named)
        return kernel(*args, **named)

    return run
