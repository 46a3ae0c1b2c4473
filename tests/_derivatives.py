"""Every way PyTorch differentiates, held to central differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.autograd.forward_ad as fw
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap

F64 = torch.float64
STEP = 1e-5
Map = Callable[[Tensor], Tensor]


def joined(values: Sequence[Tensor]) -> Tensor:
    """All of them as one vector."""
    return torch.cat([value.reshape(-1) for value in values])


def flat(function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]) -> tuple[Map, Tensor]:
    """The call as a map from one vector to another, and the vector of its arguments."""
    sizes, shapes = [value.numel() for value in arguments], [value.shape for value in arguments]

    def of(vector: Tensor) -> Tensor:
        parts = zip(vector.split(sizes), shapes, strict=True)
        return joined(function(*(part.reshape(shape) for part, shape in parts)))

    return of, joined([value.detach() for value in arguments])


def of_module(
    module: nn.Module, method: Callable[..., Sequence[Tensor]], *inputs: Tensor
) -> tuple[Callable[..., Sequence[Tensor]], list[Tensor]]:
    """``method(*inputs)`` of a module as a function of the inputs and of its parameters, and all of these."""
    names = [name for name, _ in module.named_parameters()]

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Tensor) -> Sequence[Tensor]:
            return method(*given)

    def of(*given: Tensor) -> Sequence[Tensor]:
        parameters = {f"module.{name}": value for name, value in zip(names, given[len(inputs) :], strict=True)}
        return functional_call(Call(), parameters, given[: len(inputs)])

    return of, [*inputs, *(value.detach() for value in module.parameters())]


def differences(function: Map, at: Tensor) -> Tensor:
    """The Jacobian by central differences."""
    steps = STEP * torch.eye(len(at), dtype=F64)
    return torch.stack([(function(at + step) - function(at - step)) / (2 * STEP) for step in steps], -1)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-7) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def _weights(count: int) -> Tensor:
    return torch.linspace(-1.0, 1.3, count, dtype=F64).cos()


def check_first(function: Map, at: Tensor, smooth: Map | None = None) -> None:
    """Jacobians in both modes, the product with a tangent, dual numbers without a graph."""
    expected = differences(smooth or function, at)
    close(jacfwd(function)(at), expected)
    close(jacrev(function)(at), expected)
    close(torch.autograd.functional.jacobian(function, at), expected)
    tangent = _weights(len(at)).sin()
    value, got = jvp(function, (at,), (tangent,))
    close(value, function(at), 1e-12)
    close(got, expected @ tangent)
    with torch.no_grad(), fw.dual_level():
        dual = fw.unpack_dual(function(fw.make_dual(at, tangent)))
    close(dual.tangent, expected @ tangent)


def check_second(function: Map, at: Tensor, smooth: Map | None = None) -> None:
    """Hessians of a weighted sum, in every order of the modes; :func:`check_first` holds the gradient itself."""
    weights = _weights(len(function(at)))

    def loss(vector: Tensor) -> Tensor:
        return function(vector) @ weights

    smooth = smooth or function
    expected = differences(lambda vector: jacrev(lambda v: smooth(v) @ weights)(vector), at)
    close(hessian(loss)(at), expected)  # forward over reverse
    close(jacrev(jacrev(loss))(at), expected)
    close(jacfwd(jacfwd(loss))(at), expected)
    close(torch.autograd.functional.hessian(loss, at), expected)


def check_vmap(
    function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor], tolerance: float = 1e-12
) -> None:
    """``vmap`` over each argument alone, and over all of them, against a loop."""
    count = len(arguments)
    stacks = [torch.stack([value, value + 0.25, value - 0.5]) for value in arguments]
    for batched in (*([i] for i in range(count)), list(range(count))):
        where = tuple(0 if i in batched else None for i in range(count))
        given = [stacks[i] if i in batched else value for i, value in enumerate(arguments)]
        got = vmap(function, where)(*given)
        for row in range(3):
            alone = function(*(value[row] if i in batched else value for i, value in enumerate(given)))
            for ours, theirs in zip(got, alone, strict=True):
                close(ours[row], theirs, tolerance)


def check_all(function: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]) -> None:
    """First and second derivatives in all arguments, and ``vmap`` over each."""
    check_first(*flat(function, arguments))
    check_second(*flat(function, arguments))
    check_vmap(function, arguments)
