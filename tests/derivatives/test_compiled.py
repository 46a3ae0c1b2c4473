"""Compiled programs: first derivatives, and a clear error, or the right number, for what the compiler cannot do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp

from tests.derivatives.operators import OPERATORS
from tests.derivatives.subject import all_close, close, dot, mode

NAMES = ("glow", "rounding, beta", "mirrored, exact, joined", "gaussian", "paired")


def _compiled(function: Callable[..., Tensor], backend: str) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend, dynamic=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_derivative_of_a_compiled_call_is_an_error(name: str) -> None:
    subject = OPERATORS[name]()
    leaves = subject.leaves()
    loss = _compiled(subject.loss, "aot_eager")(leaves)
    first = dict(zip(leaves, subject.grads(loss, leaves, create_graph=True), strict=True))
    all_close({n: g.detach() for n, g in first.items()}, subject.expected_gradient, "first derivative")
    slope = dot(first, subject.direction)
    with pytest.raises(RuntimeError, match="double backward"):
        slope.backward()


@pytest.mark.parametrize("name", NAMES)
def test_transforms_inside_a_compiled_program(name: str) -> None:
    subject = OPERATORS[name]()
    tensors, v = subject.tensors, subject.direction
    all_close(_compiled(grad(subject.loss), "aot_eager")(tensors), subject.expected_gradient, "compiled grad")
    tangent = _compiled(lambda t: jvp(subject.loss, (t,), (v,))[1], "aot_eager")(tensors)
    close(tangent, dot(subject.expected_gradient, v), "compiled jvp")
    with mode("reference"):
        all_close(_compiled(grad(subject.loss), "aot_eager")(tensors), subject.expected_gradient, "compiled reference")
