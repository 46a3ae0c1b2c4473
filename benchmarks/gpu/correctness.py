"""Every operator on the device, on every backend that has it, against its formula in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

import hybridkern
from benchmarks.gpu import models, special
from benchmarks.gpu.backends import backends_of, serves
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.sizes import Sizes
from hybridkern.ops._operator import OPERATORS, Sample
from hybridkern.ops._samples import normal
from tests._tolerances import Expected, allowed_error, assert_matches, to_numpy
from tests.ops.layouts import LAYOUTS

COLUMNS = ("worst",)
Results = dict[str, Tensor]
# contiguous everywhere; the others in float32, where alignment and strides are what may go wrong
_LAYOUTS = ("channels_last", "channels_last_slice", "misaligned", "every_other")
_SHAPES = ((3, 6, 8, 8), (5, 64), (40,))
_LONG = ((2, 12, 33, 31), (3, 5000))  # several programs a row
_CALLS = 3  # Triton's launches: the first compiles, the second is recorded, the third follows the record


def items(device: Device, sizes: Sizes) -> list[Item]:
    """A sample of an operator in one dtype and layout on one backend; then what is no matter of one operator."""
    found = []
    for name, operator in OPERATORS.items():
        for variant, sample in operator.samples.items():
            for backend in backends_of(device):
                if serves(backend, name):
                    found += _of_sample(f"{name}.{variant}", sample, backend, variant == next(iter(operator.samples)))
    return found + special.items(device, sizes) + models.items(device, sizes)


def _of_sample(name: str, sample: Sample, backend: str, first: bool) -> list[Item]:
    shape = _fitting(sample, _SHAPES)
    cases = [(dtype, shape, "contiguous") for dtype in (sample.dtypes if first else sample.dtypes[:1])]
    if len(shape) == 4 and first:
        cases += [(torch.float32, shape, layout) for layout in _LAYOUTS]
    cases.append((torch.float32, _fitting(sample, _LONG), "contiguous"))
    made = []
    for dtype, at, layout in cases:
        item = f"{name} {backend} {str(dtype).removeprefix('torch.')} {'x'.join(map(str, at))} {layout}"
        made.append(Item(item, partial(_check, item, sample, backend, dtype, at, layout)))
    return made


def _fitting(sample: Sample, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The first of these shapes that the sample takes; else the first rank that it has, with sizes that it takes."""
    for shape in shapes:
        if sample.takes(shape):
            return shape
    rank = next(iter(sample.shapes))
    return (4, *(min(6, sample.channels[-1]),) * (rank - 1)) if rank else ()


def _check(
    item: str,
    sample: Sample,
    backend: str,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    layout: str,
    context: Context,
) -> None:
    exact = evaluated(sample.function, sample.arguments(shape, dtype), "reference", torch.float64)
    with context.device.torch:
        args = {name: placed(value, layout) for name, value in sample.arguments(shape, dtype).items()}
        copies = {name: value.clone() for name, value in args.items()}
        calls = [evaluated(sample.function, args, backend) for _ in range(_CALLS)]
    for name, copy in copies.items():
        if not torch.equal(args[name], copy):
            raise AssertionError(f"{name} was changed")
    terms = max(value.numel() for value in args.values())
    context.add(item, worst=max(compare(got, exact, terms) for got in calls))


def placed(value: Tensor, layout: str) -> Tensor:
    """The same numbers in that layout; vectors stay as they are."""
    return LAYOUTS[layout](value) if value.ndim > 1 else value


def evaluated(
    function: Callable[..., tuple[Tensor, ...]], args: Results, backend: str, dtype: torch.dtype | None = None
) -> Results:
    """Outputs, and gradients of a weighted sum of them, by name; with the arguments in ``dtype`` if one is given."""
    leaves = {name: (value.to(dtype) if dtype else value).detach().requires_grad_() for name, value in args.items()}
    with hybridkern.use_backend(backend):
        outputs = function(*leaves.values())
        flowing = [out for out in outputs if out.requires_grad]
        # the same numbers in every dtype, since bfloat16 has them all
        weights = [normal(20 + i, tuple(out.shape), torch.bfloat16) for i, out in enumerate(flowing)]
        if flowing:
            torch.autograd.backward(flowing, [w.to(out.dtype) for w, out in zip(weights, flowing, strict=True)])
    found = {f"out{i}": out.detach() for i, out in enumerate(outputs)}
    return found | {f"grad {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def compare(got: Results, exact: Results, terms: int = 1) -> float:
    """The largest error, as a share of what the table of tolerances allows.

    Args:
        got: what was computed.
        exact: what it should be; what is missing on one side is zero there.
        terms: numbers of order one that are summed to the elements of a result.

    Raises:
        AssertionError: an error beyond the table.
    """
    worst = 0.0
    for name in got.keys() | exact.keys():
        known = got.get(name, exact.get(name))
        assert known is not None
        value = got.get(name, torch.zeros_like(known))
        wanted = to_numpy(exact.get(name, torch.zeros_like(known)))
        size = max(1.0, np.abs(wanted).max(initial=0.0) + (terms / max(1, wanted.size)) ** 0.5)
        expected = Expected(wanted, np.full_like(wanted, size), True)
        assert_matches(value, expected, name)
        worst = max(worst, _share(value, expected))
    return worst


def _share(value: Tensor, expected: Expected) -> float:
    if not expected.value.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        error = np.abs(to_numpy(value) - expected.value)
    return float(np.nan_to_num(error / allowed_error(expected, value.dtype)).max())
