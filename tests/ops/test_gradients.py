"""Autograd: gradcheck in float64, and gradients of some inputs and from some outputs only."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hybridkern import ops
from hybridkern.ops import CouplingForm
from hybridkern.ops._operator import Sample
from tests.ops import inputs, oracle
from tests.ops.samples import DIFFERENTIABLE, SAMPLES, a_shape, differentiable, upstream

F64 = torch.float64
SHAPE = (2, 2, 3)


def leaves(args: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [value.detach().requires_grad_() for value in args.values()]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_gradcheck_of_every_form(backend: str, name: str, inverse: bool) -> None:
    params = inputs.coupling_params(name, SHAPE, F64, reach=0.15)
    args = leaves({"x": inputs.normal(0, SHAPE, F64), "params": params, "log_det": inputs.normal(1, (2,), F64)})
    assert torch.autograd.gradcheck(lambda *a: ops.affine_coupling(*a, form=name, inverse=inverse), args)


FORM = {"clamp": 1.7, "offset": -0.3, "eps": 0.05, "gain": 0.6, "shift_gain": -1.3}


@pytest.mark.parametrize("scale", ["exp", "sigmoid", "tanh", "atan", "softsign", "softplus", "none"])
@pytest.mark.parametrize("shift", ["after", "before", "subtract"])
def test_gradcheck_of_custom_forms(backend: str, scale: str, shift: str) -> None:
    """Every constant of a form other than its default, in both signs and both directions."""
    for negate, inverse, layout in ((False, True, "interleaved"), (True, False, "interleaved_scale_shift")):
        form = CouplingForm(scale=scale, shift=shift, negate=negate, layout=layout, **FORM)
        params = inputs.normal(3, (2, 2 if scale == "none" else 4, 3), F64)
        args = leaves({"x": inputs.normal(0, SHAPE, F64), "params": params})
        assert torch.autograd.gradcheck(
            lambda *a, form=form, inverse=inverse: ops.affine_coupling(*a, form=form, inverse=inverse), args
        )


SMOOTH = [name for name, sample in DIFFERENTIABLE.items() if sample.smooth]


def arguments(sample: Sample) -> dict[str, torch.Tensor]:
    return sample.arguments(a_shape(sample, (3, 4, 5), (3, 4), (2, 2, 4, 3)), torch.float32)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradcheck_of_every_operator(backend: str, name: str) -> None:
    sample = SAMPLES[name]
    args = leaves(sample.arguments(a_shape(sample, (2, 3), (2, 2, 3, 2)), F64))
    assert torch.autograd.gradcheck(sample.function, args)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_input_may_be_the_only_one_that_requires_grad(backend: str, name: str) -> None:
    sample, args = SAMPLES[name], arguments(SAMPLES[name])
    full = leaves(args)
    outputs = sample.function(*full)
    grads = upstream(list(outputs))
    torch.autograd.backward(outputs, grads)
    for index, value in enumerate(full):
        alone = [other.detach().requires_grad_(index == i) for i, other in enumerate(full)]
        pairs = [pair for pair in zip(sample.function(*alone), grads, strict=True) if pair[0].requires_grad]
        torch.autograd.backward(*zip(*pairs, strict=True))
        assert torch.equal(alone[index].grad, value.grad)
        assert all(other.grad is None for i, other in enumerate(alone) if i != index)


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_recorded_where_no_gradient_is_wanted(backend: str, name: str) -> None:
    sample, args = SAMPLES[name], arguments(SAMPLES[name])
    assert not any(out.requires_grad for out in sample.function(*args.values()))
    with torch.no_grad():
        assert not any(out.requires_grad for out in sample.function(*leaves(args)))


def coupling(form: str) -> Sample:
    """``affine_coupling`` of any form, as a sample."""
    return SAMPLES["affine_coupling.glow"]._replace(
        function=partial(ops.affine_coupling, form=form),
        arguments=lambda shape, dtype: {
            "x": inputs.normal(0, shape, dtype),
            "params": inputs.coupling_params(form, shape, dtype, reach=0.3),
            "log_det": torch.ones(shape[0], dtype=dtype),
        },
    )


SEVERAL = DIFFERENTIABLE | {f"form {form}": coupling(form) for form in oracle.FORMS}


@pytest.mark.parametrize("name", SEVERAL)
def test_loss_of_one_output(backend: str, name: str) -> None:
    """The same as giving the other outputs a gradient of zeros."""
    sample = SEVERAL[name]
    args = arguments(sample)
    for used in range(len(sample.function(*args.values()))):
        one, all_of_them = leaves(args), leaves(args)
        outputs = sample.function(*one)
        grads = [grad if i == used else torch.zeros_like(grad) for i, grad in enumerate(upstream(list(outputs)))]
        outputs[used].backward(grads[used])
        torch.autograd.backward(sample.function(*all_of_them), grads)
        for got, expected in zip(one, all_of_them, strict=True):
            values = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (got, expected)]
            assert torch.equal(*values)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_a_plain_sum(backend: str, name: str) -> None:
    """``sum()`` sends back a gradient of stride 0; ``ones`` must give the same."""
    sample, args = SAMPLES[name], arguments(SAMPLES[name])
    summed, ones = leaves(args), leaves(args)
    sum(out.sum() for out in differentiable(sample.function(*summed))).backward()
    outputs = differentiable(sample.function(*ones))
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(summed, ones, strict=True))
