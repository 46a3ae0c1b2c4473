"""Every operator on every memory layout of every argument, and of the gradient that comes back."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.ops import inputs, layouts, samples
from tests.ops.checks import assert_strides_like, check_coupling
from tests.ops.layouts import LAYOUTS
from tests.ops.samples import SAMPLES

SHAPE = (3, 5, 6, 7)
EXPANDED = {"over_batch": layouts.expanded_over_batch, "over_space": layouts.expanded_over_space}
ALL = LAYOUTS | EXPANDED
F32 = torch.float32
# These promise outputs that lie like ``torch.empty_like`` of the main tensor.
LIKE_X = [
    name
    for name in SAMPLES
    if name.startswith(("affine_coupling.", "rounding_coupling.", "paired_conv1x1.")) or name.endswith(".elements")
]


OTHERS = ("contiguous", "channels_last", "channel_slice", "transposed", "every_other", "over_batch")


@cache
def plain(name: str) -> tuple[samples.Results, samples.Results]:
    """Row-major arguments of a sample, and its exact results."""
    sample = SAMPLES[name]
    args = sample.arguments(samples.a_shape(sample, SHAPE, SHAPE[1:3]), F32)
    return args, samples.exactly(sample, args)


def place(args: dict[str, torch.Tensor], which: object, layout: str) -> dict[str, torch.Tensor]:
    """The arguments for whose name ``which`` is true, where they have two dimensions at least, in this layout."""
    return {key: ALL[layout](value) if which(key) and value.ndim > 1 else value for key, value in args.items()}


@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("name", SAMPLES)
def test_main_tensor_beside_all_others(backend: str, name: str, layout: str) -> None:
    """The main tensor in each layout, all others in many."""
    args, exact = plain(name)
    main = samples.main_name(args)
    for other in OTHERS:
        same = not {layout, other} & EXPANDED.keys()  # these change the numbers
        mixed = place(place(args, main.__eq__, layout), main.__ne__, other)
        samples.check(SAMPLES[name], mixed, exact=exact if same else None)


@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("name", SAMPLES)
def test_one_argument_and_the_gradient(backend: str, name: str, layout: str) -> None:
    """Each argument alone in the layout among channels_last ones, with gradients in it."""
    args, exact = plain(name)
    for argument in args:
        mixed = place(place(args, argument.__ne__, "channels_last"), argument.__eq__, layout)
        samples.check(SAMPLES[name], mixed, ALL[layout], None if layout in EXPANDED else exact)


@pytest.mark.parametrize("layout", ALL)
@pytest.mark.parametrize("name", LIKE_X)
def test_output_lies_like_the_main_tensor(backend: str, name: str, layout: str) -> None:
    args = place(SAMPLES[name].arguments(SHAPE, F32), lambda _: True, layout)
    main = args[samples.main_name(args)]
    assert_strides_like(SAMPLES[name].function(*args.values())[0], main)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_coupling_on_half_of_one_tensor(backend: str, layout: str) -> None:
    """``x`` is a slice of the features and the parameters are a slice of a wider network output."""
    for name in ("nflows", "additive"):
        x, params = inputs.normal(0, SHAPE, F32), inputs.coupling_params(name, SHAPE, F32)
        args = {
            "x": LAYOUTS[layout](torch.cat([x, x + 1], dim=1))[:, SHAPE[1] :],
            "params": LAYOUTS[layout](torch.cat([params, params], dim=1))[:, : params.shape[1]],
            "log_det": inputs.normal(2, SHAPE[:1], F32),
        }
        check_coupling(args, name, False)


@pytest.mark.parametrize(
    "log_det", [torch.arange(6.0)[::2], torch.tensor([1.5]).expand(3)], ids=["strided", "expanded"]
)
def test_coupling_log_det_with_a_stride(backend: str, log_det: torch.Tensor) -> None:
    args = {"x": inputs.normal(0, SHAPE, F32), "params": inputs.coupling_params("exp", SHAPE, F32)}
    check_coupling(args | {"log_det": log_det.to(args["x"].device)}, "exp", False)
