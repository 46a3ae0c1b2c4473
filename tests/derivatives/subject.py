"""What a row of the table is: a function of named tensors, and what is known of its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import pytest
import torch
from torch import Tensor

from hybridkern import use_backend
from hybridkern.ops._autograd import python_functions

Tensors = dict[str, Tensor]
F64 = torch.float64
STEP = 1e-5
# How a call is recorded: by the C++ nodes where they are built, by the Python Functions, or by the formulas.
MODES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "nodes": nullcontext,
    "functions": python_functions,
    "reference": lambda: use_backend("reference"),
}


def normal(seed: int, *shape: int, scale: float = 0.7) -> Tensor:
    """Normal variables in float64."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def moved(tensors: Tensors, direction: Tensors, by: float) -> Tensors:
    """``tensors + by * direction``."""
    return {name: value + by * direction[name] for name, value in tensors.items()}


def dot(a: Tensors, b: Tensors) -> Tensor:
    """The sum of all products."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


@dataclass
class Subject:
    """A function of tensors to a tuple of tensors.

    Attributes:
        function: takes the tensors by name.
        tensors: where it is differentiated, float64.
        rows: names of the tensors that hold one row an example; all of them together make the examples.
        main: the tensor in which whole Hessians are taken: a small one.
        refused: columns that raise RuntimeError, and words of its message.
        smooth: a function whose derivatives are the right ones, if ``function`` itself passes straight through jumps.
    """

    function: Callable[..., tuple[Tensor, ...]]
    tensors: Tensors
    rows: tuple[str, ...] = ()
    main: str = "x"
    smooth: Callable[..., tuple[Tensor, ...]] | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def loss(self, tensors: Tensors) -> Tensor:
        """A number that depends on all outputs, and not linearly."""
        return self._loss(self.function, tensors)

    def _loss(self, function: Callable[..., tuple[Tensor, ...]], tensors: Tensors) -> Tensor:
        terms = []
        for k, out in enumerate(function(**tensors)):
            weights = torch.linspace(0.5 + k, -1.0, out.shape[-1] if out.ndim else 1, dtype=F64)
            terms.append((weights * out + 0.3 * out.square()).sum())
        return torch.stack(terms).sum()

    def leaves(self) -> Tensors:
        """The tensors as leaves of a new graph."""
        return {name: value.detach().clone().requires_grad_() for name, value in self.tensors.items()}

    def gradient(self, tensors: Tensors, function: Callable[..., tuple[Tensor, ...]] | None = None) -> Tensors:
        """By autograd, of ``function`` or the subject's own."""
        leaves = {name: value.detach().requires_grad_() for name, value in tensors.items()}
        return dict(zip(leaves, self.grads(self._loss(function or self.function, leaves), leaves), strict=True))

    @staticmethod
    def grads(loss: Tensor, leaves: Tensors, **options: bool) -> list[Tensor]:
        """Gradients of the leaves; zeros where there is none."""
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, **options)
        return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves.values(), strict=True)]

    @cached_property
    def direction(self) -> Tensors:
        """In which derivatives are taken."""
        return {name: normal(31 + i, *value.shape) for i, (name, value) in enumerate(self.tensors.items())}

    @cached_property
    def expected_gradient(self) -> Tensors:
        """By the reference's autograd, held to finite differences of the values; of ``smooth`` where there is one."""
        with use_backend("reference"):
            found = self.gradient(self.tensors, self.smooth)
            if self.smooth is None:
                with torch.no_grad():
                    ahead, behind = (self.loss(moved(self.tensors, self.direction, s)) for s in (STEP, -STEP))
                close(dot(found, self.direction), (ahead - behind) / (2 * STEP), "the reference's gradient")
        return found

    def along(self, direction: Tensors) -> Tensors:
        """The Hessian times ``direction``: differences of the expected gradient, or autograd's of ``smooth``."""
        if self.smooth is not None:
            with use_backend("reference"):
                leaves = self.leaves()
                first = self.grads(self._loss(self.smooth, leaves), leaves, create_graph=True)
                slope = dot(dict(zip(leaves, first, strict=True)), direction)
                return dict(zip(leaves, self.grads(slope, leaves), strict=True))
        with use_backend("reference"):
            ahead, behind = (self.gradient(moved(self.tensors, direction, s)) for s in (STEP, -STEP))
        return {name: (ahead[name] - behind[name]) / (2 * STEP) for name in ahead}

    @cached_property
    def expected_product(self) -> Tensors:
        """The Hessian times :attr:`direction`."""
        return self.along(self.direction)

    @cached_property
    def expected_hessian(self) -> Tensor:
        """In the tensor ``main``, ``(n, n)``."""
        size = self.tensors[self.main].numel()
        rows = []
        for i in range(size):
            unit = {name: torch.zeros_like(value) for name, value in self.tensors.items()}
            unit[self.main].view(-1)[i] = 1.0
            rows.append(self.along(unit)[self.main].flatten())
        return torch.stack(rows)

    def with_main(self, value: Tensor) -> Tensors:
        """The tensors, with another ``main``."""
        return self.tensors | {self.main: value}

    def examples(self) -> Iterator[Tensors]:
        """One example after the other, each with a batch of one."""
        for i in range(len(self.tensors[self.rows[0]])):
            yield {k: v[i : i + 1] if k in self.rows else v for k, v in self.tensors.items()}


def close(got: Tensor, expected: Tensor, what: str, relative: float = 1e-7) -> None:
    """The largest error is small beside the largest number: what differences of step 1e-5 resolve."""
    assert got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if not expected.numel():
        return
    size = max(1.0, expected.abs().max().item())
    error = (got.detach() - expected).abs().max().item()
    assert error <= relative * size, f"{what}: error {error:.3g} beside {size:.3g}"


def all_close(got: Tensors, expected: Tensors, what: str) -> None:
    """:func:`close` for each name; no name is missing."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        close(got[name], value, f"{what}, {name}")


def run(column: Callable[[Subject], None], subject: Subject, recorded: str) -> None:
    """One column of the table; where it is refused, an error that says so."""
    with mode(recorded):
        if column.__name__ not in subject.refused:
            column(subject)
            return
        with pytest.raises(RuntimeError, match=subject.refused[column.__name__]):
            column(subject)


@contextmanager
def mode(name: str) -> Iterator[None]:
    """One of :data:`MODES`."""
    with MODES[name]():
        yield
