"""Every operator on every rank, on odd and empty sizes, and with parameters of fewer dimensions."""

from __future__ import annotations

import pytest
import torch

from tests.ops import inputs, samples
from tests.ops.checks import check_mixture
from tests.ops.layouts import channels_last
from tests.ops.samples import SAMPLES

SHAPES = [
    (),
    (5,),
    (4097,),
    (1, 1),
    (3, 7),
    (1, 31),
    (17, 33),
    (2, 1000),
    (1, 4097),
    (1000, 1),
    (7, 1, 33),
    (2, 3, 7),
    (3, 5, 17, 31),
    (33, 3, 1, 1),
    (1, 1, 1, 17),
    (2, 17, 3, 1),
    (2, 3, 3, 5, 7),
    (2, 1, 3, 1, 2, 3),
]
EMPTY = [(0,), (0, 4), (0, 3, 4, 4), (2, 0), (2, 0, 4, 4), (2, 3, 0, 4), (0, 0), (2, 3, 4, 0, 2)]
EXACT = (torch.float32, torch.float64)
TAKEN = [(name, shape) for name, sample in SAMPLES.items() for shape in SHAPES + EMPTY if sample.takes(shape)]


@pytest.mark.parametrize(("name", "shape"), TAKEN, ids=lambda value: str(value).replace(" ", ""))
def test_shape(backend: str, name: str, shape: tuple[int, ...]) -> None:
    sample = SAMPLES[name]
    for dtype in EXACT:
        args = sample.arguments(shape, dtype)
        samples.check(sample, args)
        if len(shape) > 3:
            samples.check(sample, {key: channels_last(value) for key, value in args.items()})


def test_every_sample_takes_some_shapes() -> None:
    """A sample that takes none of them would pass unseen."""
    assert {name for name, _ in TAKEN} == set(SAMPLES)


@pytest.mark.parametrize("shape", [(2, 3, 7), (3, 5, 4, 3), (0, 4)], ids=str)
def test_parameters_of_the_whole_batch_and_of_each_example(backend: str, shape: tuple[int, ...]) -> None:
    """Elements under shared parameters, sums under those of each example, one component."""
    for components in (1, 3):
        full = (shape[0], components, *shape[1:])
        args = {"x": inputs.normal(0, shape, torch.float32)}
        args |= {name: inputs.normal(i, full, torch.float32) for i, name in enumerate(("logits", "mean", "log_scale"))}
        check_mixture(args, reduction="sum")
        check_mixture({name: value if name == "x" else value[:1] for name, value in args.items()})


def test_mixture_weights_may_have_one_component_that_others_broadcast(backend: str) -> None:
    args = {
        "x": inputs.normal(0, (4, 6), torch.float32),
        "logits": inputs.normal(1, (4, 1, 6), torch.float32),
        "mean": inputs.normal(2, (1, 5, 1), torch.float32),
        "log_scale": inputs.normal(3, (4, 5, 6), torch.float32),
    }
    check_mixture(args)
