"""paired_conv1x1 against a float64 matrix product: sizes, dtypes, instruction sets; and what it alone promises."""

from __future__ import annotations

import pytest
import torch

from hybridkern import ops
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.checks import check_paired_conv1x1 as check
from tests.ops.checks import leaves_of

F32, F64 = torch.float32, torch.float64
SHAPES = [
    (1, 1),
    (3, 7),
    (17, 33),
    (2, 6, 16, 16),
    (3, 12, 5, 9),
    (2, 24, 8, 8),
    (2, 17, 3, 1),
    (5, 40, 129),
    (2, 3, 3, 5, 7),
    (0, 4),
    (0, 3, 4, 4),
    (2, 3, 0, 4),
    (700, 2),
]


def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    channels = 2 * shape[1]
    return {
        "first": inputs.normal(0, shape, dtype),
        "second": inputs.normal(1, shape, dtype),
        "weight": inputs.normal(2, (channels, channels), dtype),
        "bias": inputs.normal(3, (channels,), dtype),
    }


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = arguments(shape, dtype)
    check(args)
    check({name: layouts.channels_last(value) for name, value in args.items()}, layouts.channels_last)


def test_without_bias_and_one_output_used(backend: str) -> None:
    args = arguments((3, 5, 6, 7), F32)
    zero = args | {"bias": torch.zeros(10)}
    del args["bias"]
    for part, expected in zip(ops.paired_conv1x1(**args), ops.paired_conv1x1(**zero), strict=True):
        assert torch.equal(part, expected)
    leaves = leaves_of(args)
    ops.paired_conv1x1(**leaves)[1].sum().backward()
    assert not leaves["weight"].grad[:5].any() and leaves["weight"].grad[5:].all()


def test_undoes_itself_with_the_inverse_matrix(backend: str) -> None:
    args = arguments((3, 5, 6, 7), F64)
    y = ops.paired_conv1x1(**args)
    back = torch.linalg.inv(args["weight"])
    for got, name in zip(ops.paired_conv1x1(*y, back, -back @ args["bias"]), ("first", "second"), strict=True):
        torch.testing.assert_close(got, args[name], rtol=1e-10, atol=1e-10)


def test_nan_and_infinity_are_passed_on_in_their_pixel(backend: str) -> None:
    args = arguments((3, 5, 7), F32)
    before = ops.paired_conv1x1(**args)
    for bad in (float("nan"), float("inf")):
        dirty = args | {"first": args["first"].clone()}
        dirty["first"][1, 2, 3] = bad
        for clean, part in zip(before, ops.paired_conv1x1(**dirty), strict=True):
            assert not part[1, :, 3].isfinite().any()
            part[1, :, 3] = clean[1, :, 3]
            assert torch.equal(part, clean)


if "cpp" in COMPILED_BACKENDS:

    @pytest.mark.usefixtures("level")
    def test_every_instruction_set() -> None:
        for shape in SHAPES:
            check({name: layouts.channels_last(value) for name, value in arguments(shape, F32).items()})
