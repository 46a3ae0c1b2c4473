"""Every sample of every operator of the registry, for the suites that treat all operators alike; and how one is run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import hybridkern
from hybridkern.ops import _gpu
from hybridkern.ops._operator import OPERATORS, Sample
from tests._tolerances import Expected, assert_matches, to_numpy
from tests.ops import inputs

Results = dict[str, Tensor]
Layout = Callable[[Tensor], Tensor]

SAMPLES: dict[str, Sample] = {
    f"{name}.{variant}": sample for name, operator in OPERATORS.items() for variant, sample in operator.samples.items()
}
# One of each, for what is slow.
FIRST: dict[str, Sample] = {
    name: next(iter(operator.samples.values())) for name, operator in OPERATORS.items() if operator.samples
}
DIFFERENTIABLE = {name: sample for name, sample in SAMPLES.items() if sample.differentiable}


def has_kernels(name: str, backend: str) -> bool:
    """Whether a backend serves the operator of a sample: an explicit choice does not fall back to one that does."""
    operator = OPERATORS[name.partition(".")[0]]
    if backend == "cpp":
        return bool(operator.dtypes)
    served = {"triton": _gpu.triton_operators(), "cuda": _gpu.state.native}
    return backend == "reference" or (operator.made_of or operator.name) in served[backend]


def a_shape(sample: Sample, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The first of these shapes that the sample takes."""
    return next(shape for shape in shapes if sample.takes(shape))


def main_name(args: dict[str, Tensor]) -> str:
    """Name of the main tensor."""
    return next(iter(args))


def differentiable(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs that depend on something that requires a gradient."""
    return [out for out in outputs if out.requires_grad]


def upstream(outputs: list[Tensor]) -> list[Tensor]:
    """A gradient for each: the same numbers in every dtype, since bfloat16 has them all."""
    drawn = (inputs.normal(20 + i, tuple(out.shape), torch.bfloat16) for i, out in enumerate(outputs))
    return [grad.to(out.dtype).to(out.device) for grad, out in zip(drawn, outputs, strict=True)]


def run(function: Callable[..., tuple[Tensor, ...]], args: dict[str, Tensor], place: Layout | None = None) -> Results:
    """Outputs ``out0, out1, ...`` and the gradients ``grad <name>`` of a weighted sum of all of them.

    ``place`` lays the gradients of the outputs out in memory.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in args.items()}
    outputs = function(*leaves.values())
    flowing = differentiable(outputs)
    grads = [place(grad) if place and grad.ndim > 1 else grad for grad in upstream(flowing)]
    if flowing:
        torch.autograd.backward(flowing, grads)
    results = {f"out{i}": out.detach() for i, out in enumerate(outputs)}
    return results | {f"grad {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def assert_same_bits(got: Results, expected: Results, what: str = "") -> None:
    """Every result is equal, NaN to NaN, and has the same dtype."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype is value.dtype
        assert torch.equal(got[name].nan_to_num(nan=1234.5), value.nan_to_num(nan=1234.5)), f"{what} {name} differs"


def assert_near(got: Results, expected: Results, terms: int = 1) -> None:
    """Every result is within the table of tolerances, by the largest number in it; one that is left out is zero.

    ``terms`` numbers of order one are summed to the elements of a result together: their rounding counts, too.
    """
    for name in got.keys() | expected.keys():
        known = got.get(name, expected.get(name))
        value, wanted = (side.get(name, torch.zeros_like(known)) for side in (got, expected))
        exact = to_numpy(wanted)
        size = max(1.0, np.abs(exact).max(initial=0.0), (terms / max(1, exact.size)) ** 0.5)
        assert_matches(value, Expected(exact, np.full_like(exact, size), True), name)


def exactly(sample: Sample, args: dict[str, Tensor], place: Layout | None = None) -> Results:
    """What :func:`run` gives in float64 by the reference formula."""
    with hybridkern.use_backend("reference"):
        return run(sample.function, {name: value.double() for name, value in args.items()}, place)


def check(
    sample: Sample, args: dict[str, Tensor], place: Layout | None = None, exact: Results | None = None
) -> Results:
    """The sample agrees with its reference formula in float64, has the promised dtypes, and changes no argument.

    Returns what it found; ``exact`` is what :func:`exactly` gives, if that is known.
    """
    copies = {name: value.clone() for name, value in args.items()}
    got = run(sample.function, args, place)
    terms = max(value.numel() for value in args.values())
    assert_near(got, exactly(sample, args, place) if exact is None else exact, terms)
    for name, copy in copies.items():
        assert torch.equal(args[name], copy), f"{name} was changed"
        assert f"grad {name}" not in got or got[f"grad {name}"].dtype is copy.dtype
    return got
