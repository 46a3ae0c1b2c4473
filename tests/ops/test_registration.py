"""The compiled kernels as PyTorch operators: opcheck on every layout, and no silent second derivatives."""

from __future__ import annotations

import pytest
import torch

from hybridkern import ops
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.calls import CALLS

pytestmark = pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)
OPERATORS = torch.ops.hybridkern
PLACES = {
    "contiguous": ((3, 4, 5, 6), layouts.contiguous),
    "channels_last": ((3, 4, 5, 6), layouts.channels_last),
    "slice": ((3, 4, 5, 6), layouts.channel_slice),
    "channels_last_slice": ((3, 4, 5, 6), layouts.channels_last_slice),
    "transposed": ((3, 4, 5, 6), layouts.transposed),
    "empty": ((0, 4, 5), layouts.contiguous),
    "odd": ((17, 33), layouts.contiguous),
    "spaceless": ((7, 1, 3, 1, 5), layouts.contiguous),
}


def spec(name: str, inverse: bool) -> tuple[float, ...]:
    form = NAMED_FORMS[name]
    return form.code(inverse), form.clamp, form.offset, form.eps, form.gain, form.shift_gain


def coupling_samples(shape, place, dtype) -> list[tuple]:
    """``(operator, arguments)`` of the three coupling operators."""
    x = place(inputs.normal(0, shape, torch.float32))
    samples = []
    for name, inverse in (("glow", False), ("normflows", True)) if shape[0] == 3 else (("additive", False),):
        params = place(inputs.coupling_params(name, shape, dtype))
        grad_y, total = place(inputs.normal(2, shape, torch.float32)), inputs.normal(3, shape[:1], torch.float32)
        form = spec(name, inverse)
        samples += [
            (OPERATORS.affine_coupling_forward, (x, params, total.double() if inverse else total, *form)),
            (OPERATORS.affine_coupling_forward, (x, params, None, *form)),
            (OPERATORS.affine_coupling_backward, (x, params, None if inverse else grad_y, total, *form)),
            (OPERATORS.affine_coupling_backward, (x, params, grad_y, None if inverse else total, *form)),
            (OPERATORS.affine_coupling_backward_from_output, (x, params, grad_y, total, *form)),
        ]
    return samples


def adamax_samples() -> list[tuple]:
    """``(operator, arguments)`` of the optimizer's step over two parameters."""
    lists = [
        [inputs.normal(3 * i + j, shape, torch.float32).abs() for j, shape in enumerate(((3, 4), (5,)))]
        for i in range(4)
    ]
    return [(OPERATORS.adamax_step, (*lists, 0.1, 0.9, 0.99, 1e-8, 0.1))]


def mirrored_samples(rows: int, half: int) -> list[tuple]:
    """``(operator, arguments)`` of the fused half coupling."""
    a, b, t = (inputs.normal(i, (rows, half), torch.float32) for i in range(3))
    beta = torch.tensor([0.5, 2.0])
    return [
        (OPERATORS.rounding_coupling_mirrored_forward, (a, b, t, beta, 1, True)),
        (OPERATORS.rounding_coupling_mirrored_backward, (a, b, t, beta, 0, False)),
    ]


def actnorm_samples(rows: int, kept: int, coupled: int) -> list[tuple]:
    """``(operator, arguments)`` of the coupling with the scale after it."""
    x, grad_y = (inputs.normal(i, (rows, kept + coupled), torch.float32) for i in range(2))
    scale, offset = (inputs.normal(i, (kept + coupled,), torch.float32) for i in (2, 3))
    samples: list[tuple] = []
    for name, turned in (("glow", False), ("nflows", True)):
        params = inputs.coupling_params(name, (rows, coupled), torch.float32)
        total, form = inputs.normal(5, (rows,), torch.float32), spec(name, False)
        if turned:
            x, grad_y, params = (value.t().contiguous().t() for value in (x, grad_y, params))
        samples += [
            (OPERATORS.affine_coupling_actnorm_forward, (x, params, scale, offset, *form)),
            (OPERATORS.affine_coupling_actnorm_backward, (grad_y, total, x, params, scale, *form)),
        ]
    return samples


def paired_samples(shape, place, dtype) -> list[tuple]:
    """``(operator, arguments)`` of the 1x1 convolution of two halves."""
    first, second, grad, other = (place(inputs.normal(i, shape, dtype)) for i in range(4))
    channels = 2 * shape[1]
    weight, bias = inputs.normal(4, (channels, channels), torch.float32), inputs.normal(5, (channels,), torch.float32)
    return [
        (OPERATORS.paired_conv1x1_forward, (first, second, weight, bias)),
        (OPERATORS.paired_conv1x1_forward, (first, second, weight, None)),
        (OPERATORS.paired_conv1x1_backward, (grad, other, first, second, weight)),
    ]


def network_samples() -> list[tuple]:
    """``(operator, arguments)`` of the coupling network; test_coupling_network.py checks more of them."""
    x, w1, w2, w3 = (inputs.normal(i, (2, 2, n, n), torch.float32) for i, n in enumerate((4, 3, 1, 3)))
    bias, hidden = inputs.normal(5, (2,), torch.float32), torch.empty(0, 32, 32)
    network = (x, w1, bias, w2, bias, w3, bias)
    return [
        (OPERATORS.coupling_network_forward, (*network, False, True)),
        (OPERATORS.coupling_network_backward, (x, *network, hidden, hidden, False, True)),
    ]


def other_samples(shape, place, dtype) -> list[tuple]:
    """``(operator, arguments)`` of the rest."""
    x, t, grad = (place(inputs.normal(i, shape, torch.float32)) for i in range(3))
    row, beta, low = inputs.normal(3, shape[:1], torch.float32), torch.tensor([0.5]), t.to(dtype)
    many = [place(inputs.normal(4 + i, (shape[0], 3 * shape[1], *shape[2:]), torch.float32)) for i in range(3)]
    many = [value.unflatten(1, (3, shape[1])).to(dtype) for value in many]
    samples = [
        (OPERATORS.rounding_coupling_forward, (x, low, None, False)),
        (OPERATORS.rounding_coupling_forward, (x, low, beta, True)),
        (OPERATORS.rounding_coupling_backward, (grad, low, beta, True)),
        (OPERATORS.gaussian_log_prob_forward, (x, None, low)),
        (OPERATORS.gaussian_log_prob_forward, (x, low[:1], low[:1])),
        (OPERATORS.gaussian_log_prob_backward, (row, x, low, None)),
        (OPERATORS.gaussian_log_prob_backward, (row, x, low[:1], low[:1])),
    ]
    for reduce, upstream, mean in ((False, grad, low), (True, row, low[:1])):
        samples.append((OPERATORS.discretized_logistic_forward, (x, mean, mean, 0.5, reduce)))
        samples.append((OPERATORS.discretized_logistic_backward, (upstream, x, mean, mean, 0.5, reduce)))
        samples.append((OPERATORS.discretized_logistic_mixture_forward, (x, *many, 0.5, reduce)))
        samples.append((OPERATORS.discretized_logistic_mixture_backward, (upstream, x, *many, 0.5, reduce)))
    return samples


@pytest.mark.parametrize("place", PLACES)
def test_opcheck(backend: str, place: str) -> None:
    shape, layout = PLACES[place]
    for samples in (coupling_samples, paired_samples, other_samples):
        for operator, args in samples(shape, layout, torch.float32):
            torch.library.opcheck(operator.default, args)


@pytest.mark.parametrize("size", [(3, 4), (0, 4), (1, 1), (17, 33)], ids=str)
def test_opcheck_of_the_fused_half_coupling(backend: str, size: tuple[int, int]) -> None:
    for operator, args in mirrored_samples(*size):
        torch.library.opcheck(operator.default, args)


@pytest.mark.parametrize("size", [(3, 4, 5), (0, 2, 2), (1, 0, 1), (17, 33, 16)], ids=str)
def test_opcheck_of_the_coupling_with_actnorm(backend: str, size: tuple[int, int, int]) -> None:
    for operator, args in actnorm_samples(*size):
        torch.library.opcheck(operator.default, args)


def test_opcheck_of_low_precision_parameters(backend: str) -> None:
    for operator, args in coupling_samples((3, 4, 5), layouts.contiguous, torch.bfloat16):
        torch.library.opcheck(operator.default, args)
    for operator, args in paired_samples((3, 4, 5), layouts.contiguous, torch.bfloat16):
        torch.library.opcheck(operator.default, args)
    for operator, args in other_samples((3, 4, 5), layouts.contiguous, torch.float16):
        torch.library.opcheck(operator.default, args)


def test_every_operator_is_checked(backend: str) -> None:
    samples = [*coupling_samples((2, 2), layouts.contiguous, torch.float32)]
    samples += other_samples((2, 2), layouts.contiguous, torch.float32) + mirrored_samples(2, 2) + adamax_samples()
    samples += paired_samples((2, 2), layouts.contiguous, torch.float32)
    samples += network_samples() + actnorm_samples(2, 2, 2)
    checked = {str(operator) for operator, _ in samples}
    names = torch._C._dispatch_get_all_op_names()
    assert checked == {name.replace("::", ".") for name in names if name.startswith("hybridkern::")}


@pytest.mark.parametrize("name", ["glow", "normflows"])
def test_backward_from_output_is_traced(backend: str, name: str) -> None:
    def function(y, params, grad_y, grad_log_det):
        return ops.affine_coupling_backward_from_output(y, params, grad_y, grad_log_det, form=name)

    shape = (4, 6, 5, 3)
    args = [inputs.normal(0, shape, torch.float32), inputs.coupling_params(name, shape, torch.float32)]
    args += [inputs.normal(1, shape, torch.float32), inputs.normal(2, shape[:1], torch.float32)]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*args), function(*args), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("name", CALLS)
def test_second_derivative_is_a_clear_error(backend: str, name: str) -> None:
    call = CALLS[name]
    leaves = [value.detach().requires_grad_() for value in call.arguments((2, 3), torch.float64).values()]
    out = call.function(*leaves)[0]
    (grad,) = torch.autograd.grad((out * out).sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
