"""The float32 kernels are built once an instruction set: each that this processor has gives results of the table."""

from __future__ import annotations

import pytest
import torch

from hybridkern import _C, ops
from tests.ops import inputs, layouts, oracle
from tests.ops.checks import check_coupling, check_logistic, check_mixture, check_rounding
from tests.ops.extremes import check_no_nan, corners
from tests.ops.samples import SAMPLES, assert_same_bits, check, run

F32 = torch.float32
SHAPES = [(5, 3, 7, 9), (3, 1), (2, 33), (2, 4, 1000)]


pytestmark = pytest.mark.usefixtures("level")


def test_build_names_the_set_that_runs() -> None:
    info = _C.build_info()
    assert {"compiler", "stable_abi", "architecture", "instruction_sets"} <= info.keys()
    assert _C.instruction_set() in info["instruction_sets"].split()


def test_unknown_set_is_refused_and_changes_nothing() -> None:
    before = _C.instruction_set()
    with pytest.raises(ValueError, match="name: got 'mmx', expected 'baseline'"):
        _C.set_instruction_set("mmx")
    assert _C.instruction_set() == before


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_coupling(name: str, inverse: bool) -> None:
    for shape in SHAPES:
        args = {"x": inputs.normal(0, shape, F32), "params": inputs.coupling_params(name, shape, F32)}
        check_coupling(args, name, inverse)
        check_coupling({key: layouts.channels_last(value) for key, value in args.items()}, name, inverse)


@pytest.mark.parametrize("bin_width", [1.0, 1 / 256, 2 / 255])
def test_logistic(bin_width: float) -> None:
    check_logistic(dict(zip(("x", "mean", "log_scale"), inputs.logistic_grid(bin_width, F32), strict=True)), bin_width)


@pytest.mark.parametrize("components", [1, 3, 10])
def test_mixture(components: int) -> None:
    for spread in (1.0, 60.0):
        check_mixture(inputs.mixture_args(components, F32, spread))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_operator(name: str) -> None:
    sample = SAMPLES[name]
    for shape in SHAPES:
        if sample.takes(shape):
            args = sample.arguments(shape, F32)
            check(sample, args)
            check(sample, {key: layouts.channels_last(value) for key, value in args.items()})


@pytest.mark.parametrize("dtype", [F32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision(dtype: torch.dtype) -> None:
    for shape in SHAPES:
        for x_dtype in (F32, dtype):
            params = inputs.coupling_params("glow", shape, dtype, reach=0.4)
            check_coupling({"x": inputs.normal(0, shape, x_dtype), "params": params}, "glow", False)
            x, t = inputs.normal(0, shape, x_dtype, scale=9.0).round(), inputs.normal(1, shape, dtype, scale=9.0)
            check_rounding({"x": x, "t": t, "beta": torch.tensor(0.75)})


def test_no_nan_from_finite_numbers() -> None:
    check_no_nan(ops.discretized_logistic_log_prob, corners(F32, 3))
    check_no_nan(ops.gaussian_log_prob, corners(F32, 3))


@pytest.mark.usefixtures("threads_restored")
@pytest.mark.parametrize("name", SAMPLES)
def test_same_bits_whatever_the_threads(name: str) -> None:
    sample, results = SAMPLES[name], []
    args = sample.arguments((300, 3, 16, 16) if sample.takes((300, 3, 16, 16)) else (5000, 33), F32)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(run(sample.function, args))
    assert_same_bits(*results)
