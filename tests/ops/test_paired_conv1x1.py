"""paired_conv1x1 against a float64 matrix product: every size, layout, dtype, instruction set and thread count."""

from __future__ import annotations

import pytest
import torch

import hybridkern
from hybridkern import ops
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, layouts
from tests.ops.calls import assert_same_bits, run
from tests.ops.checks import check_paired_conv1x1 as check
from tests.ops.checks import leaves_of

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
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


def arguments(shape: tuple[int, ...], dtype: torch.dtype, low: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    channels = 2 * shape[1]
    return {
        "first": inputs.normal(0, shape, dtype),
        "second": inputs.normal(1, shape, dtype),
        "weight": inputs.normal(2, (channels, channels), low or dtype),
        "bias": inputs.normal(3, (channels,), low or dtype),
    }


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = arguments(shape, dtype)
    check(args)
    check({name: layouts.channels_last(value) for name, value in args.items()}, layouts.channels_last)


@pytest.mark.parametrize("other", layouts.LAYOUTS)
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_layouts(backend: str, layout: str, other: str) -> None:
    args = arguments((3, 5, 6, 7), F32)
    args["first"] = layouts.LAYOUTS[layout](args["first"])
    args["second"] = layouts.LAYOUTS[other](args["second"])
    args["weight"] = args["weight"].t().contiguous().t()
    check(args, layouts.LAYOUTS[other])


@pytest.mark.parametrize(("dtype", "low"), [(F32, BF16), (F32, torch.float16), (BF16, BF16)], ids=str)
def test_low_precision(backend: str, dtype: torch.dtype, low: torch.dtype) -> None:
    check(arguments((3, 5, 6, 7), dtype, low))


def test_autocast_stays_in_float32(backend: str) -> None:
    args = arguments((3, 5, 6, 7), F32)
    with torch.autocast("cpu", BF16):
        lowered = args | {"first": args["first"].to(BF16), "second": args["second"].to(BF16)}
        assert all(part.dtype is F32 for part in ops.paired_conv1x1(**lowered))
        inside = ops.paired_conv1x1(**args)
    assert all(torch.equal(a, b) for a, b in zip(inside, ops.paired_conv1x1(**args), strict=True))


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


def test_gradcheck(backend: str) -> None:
    leaves = [value.detach().requires_grad_() for value in arguments((2, 2, 3), F64).values()]
    assert torch.autograd.gradcheck(ops.paired_conv1x1, leaves)


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


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(ops.paired_conv1x1, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((4, 6, 5, 9), (7, 2, 3, 8))[: 1 + dynamic]:
        args = arguments(shape, F32)
        got, expected = run(compiled, args), run(ops.paired_conv1x1, args)
        if backend != "reference":
            assert_same_bits(got, expected)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5)


if "cpp" in COMPILED_BACKENDS:

    @pytest.mark.usefixtures("level")
    def test_every_instruction_set() -> None:
        for shape in SHAPES:
            check({name: layouts.channels_last(value) for name, value in arguments(shape, F32).items()})

    @pytest.mark.usefixtures("level")
    @pytest.mark.parametrize("shape", [(32, 6, 16, 16), (3, 24, 40, 41), (5000, 7)], ids=str)
    def test_same_bits_whatever_the_threads(shape: tuple[int, ...]) -> None:
        before, results = torch.get_num_threads(), []
        args = {name: layouts.channels_last(value) for name, value in arguments(shape, F32).items()}
        try:
            for threads in (1, 2, 3, 4):
                torch.set_num_threads(threads)
                results.append(run(ops.paired_conv1x1, args))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            assert_same_bits(other, results[0])

    def test_second_derivative_is_a_clear_error() -> None:
        leaves = [value.requires_grad_() for value in arguments((2, 3), F64).values()]
        with hybridkern.use_backend("cpp"):
            out = ops.paired_conv1x1(*leaves)[0]
        (grad,) = torch.autograd.grad(out.square().sum(), leaves[:1], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()
