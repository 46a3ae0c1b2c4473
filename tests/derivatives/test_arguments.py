"""Arguments as programs pass them: mixed dtypes, one tensor twice, tensors changed in place, some outputs unused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybridkern import ops, use_backend
from tests.derivatives.operators import OPERATORS
from tests.derivatives.subject import MODES, Subject, close, dot, mode, normal

TWICE: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian, x and mean": lambda x: ops.gaussian_log_prob(x, x, 0.5 * x),
    "gaussian, mean and log_scale": lambda x: ops.gaussian_log_prob(x.sin(), x, x),
    "coupling, x within params": lambda x: ops.affine_coupling(x, torch.cat([x, x.sin()], 1), form="glow")[0],
    "additive, x and params": lambda x: ops.affine_coupling(x, x, form="additive")[0],
    "coupling, log_det of x": lambda x: ops.affine_coupling(x, torch.cat([x, x], 1), x[:, 0])[1],
    "logistic, x and log_scale": lambda x: ops.discretized_logistic_log_prob(x, x.cos(), x),
    "logistic, all three": lambda x: ops.discretized_logistic_log_prob(x, x, x, reduction="sum"),
    "paired, both halves": lambda x: sum(
        h.square() for h in ops.paired_conv1x1(x, x, torch.kron(x, x), torch.cat([x, x])[:, 0])
    ),
    "actnorm, all of one": lambda x: ops.affine_coupling_actnorm(x, x, x[0] + 2.0, x[1])[0],
    "mixture, mean and log_scale": lambda x: ops.discretized_logistic_mixture_log_prob(
        x, x[:, None], x[:, None], x[:, None]
    ),
}


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("name", TWICE)
def test_one_tensor_for_several_arguments(name: str, recorded: str) -> None:
    subject = Subject(lambda x: (TWICE[name](x),), {"x": normal(3, 2, 2)})
    with mode(recorded):
        leaves = subject.leaves()
        (first,) = subject.grads(subject.loss(leaves), leaves, create_graph=True)
        close(first, subject.expected_gradient["x"], "gradient")
        (second,) = subject.grads(dot({"x": first}, subject.direction), leaves)
        close(second, subject.expected_product["x"], "second derivative")


def _mixed(log_det: torch.dtype) -> tuple[dict[str, Tensor], Callable[..., Tensor]]:
    given = {"x": normal(0, 3, 2).float(), "params": normal(1, 3, 4).bfloat16(), "log_det": normal(2, 3).to(log_det)}

    def loss(x: Tensor, params: Tensor, log_det: Tensor) -> Tensor:
        y, out = ops.affine_coupling(x, params, log_det, form="realnvp")
        return y.square().sum() + out.square().sum().float()

    return given, loss


def _mixed_density(_: torch.dtype) -> tuple[dict[str, Tensor], Callable[..., Tensor]]:
    given = {"x": normal(0, 3, 2).float(), "mean": normal(1, 2).bfloat16(), "log_scale": normal(2, 3, 2).half()}
    return given, lambda **t: ops.gaussian_log_prob(**t).square().sum()


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("make", [_mixed, _mixed_density])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_come_in_the_dtype_of_their_argument(make: Callable, dtype: torch.dtype, recorded: str) -> None:
    given, loss = make(dtype)
    wide = {name: value.double().requires_grad_() for name, value in given.items()}
    with use_backend("reference"):
        first = torch.autograd.grad(loss(**wide), list(wide.values()), create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), list(wide.values()))
    narrow = {name: value.requires_grad_() for name, value in given.items()}
    with mode(recorded):
        got_first = torch.autograd.grad(loss(**narrow), list(narrow.values()), create_graph=True)
        got_second = torch.autograd.grad(sum(g.double().sum() for g in got_first), list(narrow.values()))
    for got, expected in ((got_first, first), (got_second, second)):
        for mine, exact, argument in zip(got, expected, narrow.values(), strict=True):
            assert mine.dtype is argument.dtype
            # a rounding of the argument's dtype, and a second one of what flows through the first gradient
            size = exact.abs().max().item()
            assert (mine.double() - exact).abs().max() <= 2 * torch.finfo(torch.bfloat16).eps * size


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_change_in_place_is_seen(name: str, recorded: str) -> None:
    """What the backward pass reads was written to in between: an error, never the gradient of other numbers."""
    subject = OPERATORS[name]()
    with mode(recorded):
        for changed in subject.tensors:
            for recorded_again in (False, True):
                leaves = subject.leaves()
                values = {n: leaf * 1.0 for n, leaf in leaves.items()}
                loss = subject.loss(values)
                values[changed].detach().add_(0.5)
                try:
                    got = subject.grads(loss, leaves, create_graph=recorded_again)
                except RuntimeError as error:
                    assert "modified" in str(error) and "inplace" in str(error)  # noqa: PT017
                    continue
                for value, leaf in zip(got, leaves, strict=True):
                    close(value, subject.expected_gradient[leaf], f"{changed} changed, {leaf}")


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("used", [0, 1])
@pytest.mark.parametrize("name", ["glow", "nflows inverse", "actnorm, exp", "mirrored, exact", "paired"])
def test_some_outputs_alone(name: str, used: int, recorded: str) -> None:
    whole = OPERATORS[name]()
    smooth = None if whole.smooth is None else lambda **t: (whole.smooth(**t)[used],)
    subject = Subject(lambda **t: (whole.function(**t)[used],), whole.tensors, smooth=smooth)
    with mode(recorded):
        leaves = subject.leaves()
        first = dict(zip(leaves, subject.grads(subject.loss(leaves), leaves, create_graph=True), strict=True))
        second = subject.grads(dot(first, subject.direction), leaves)
    for n, value in zip(leaves, second, strict=True):
        close(first[n], subject.expected_gradient[n], n)
        close(value, subject.expected_product[n], n)


@pytest.mark.parametrize("recorded", MODES)
@pytest.mark.parametrize("form", ["exp", "glow"])
def test_a_constant_of_the_call_stays_one(form: str, recorded: str) -> None:
    """Parameters frozen for one pass and thawed before its derivatives, as libraries do for one term of a loss."""

    def penalty(params: Tensor, thaw: bool) -> tuple[Tensor, Tensor]:
        u = normal(0, 3, 2).requires_grad_()
        shift = u.square().repeat(1, 2)
        loss = (
            ops.affine_coupling(u, params, form=form)[0].sum()
            + ops.gaussian_log_prob(u, params[:1, :2], shift[:, :2]).sum()
        )
        if thaw:
            params.requires_grad_()
        (first,) = torch.autograd.grad(loss, u, create_graph=True)
        return first, u

    params = torch.nn.Parameter(normal(1, 3, 4), requires_grad=False)
    with mode(recorded):
        first, u = penalty(params, thaw=True)
        to_params, to_u = torch.autograd.grad(first.square().sum(), (params, u), allow_unused=True)
        expected, v = penalty(params.detach(), thaw=False)
        (wanted,) = torch.autograd.grad(expected.square().sum(), v)
    assert to_params is None
    close(to_u, wanted, "second derivative")
