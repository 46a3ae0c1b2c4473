"""Inputs that no model should produce and some day one does: no NaN from finite numbers, and NaN is passed on."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch

from hybridkern import ops
from tests.conftest import DEVICE, POISON_BYTE
from tests.ops import inputs, oracle
from tests.ops.extremes import BIG, assert_no_nan, check_no_nan, corners, finite_leaves
from tests.ops.samples import SAMPLES, a_shape

DTYPES = list(BIG)


@pytest.mark.parametrize("bin_width", [1.0, 1 / 256, 1e-6, 1e6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logistic(backend: str, dtype: torch.dtype, bin_width: float) -> None:
    check_no_nan(lambda *a: ops.discretized_logistic_log_prob(*a, bin_width=bin_width), corners(dtype, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gaussian(backend: str, dtype: torch.dtype) -> None:
    check_no_nan(ops.gaussian_log_prob, corners(dtype, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mixture(backend: str, dtype: torch.dtype) -> None:
    """Two components: one ordinary, one absurd; then two absurd ones of opposite sign."""
    x, logits, mean, log_scale = corners(dtype, 4, sizes=(1.0, 100.0))
    for other in (torch.zeros_like, torch.neg):
        pairs = [torch.stack([value, other(value)], dim=1) for value in (logits, mean, log_scale)]
        check_no_nan(ops.discretized_logistic_mixture_log_prob, [x, *pairs])


@pytest.mark.parametrize("name", ["realnvp", "freia", "zuko", "glow", "normflows", "nflows"])
def test_coupling_of_any_raw_scale(backend: str, name: str) -> None:
    """Forms that bound the scale from above: finite ``x`` and shift of ordinary size, any raw scale."""
    raw = corners(torch.float32, 1)[0]
    form = oracle.FORMS[name]
    shape = raw.shape
    params = torch.from_numpy(oracle.join(raw.cpu().numpy(), np.full(shape, 0.5, np.float32), form)).to(DEVICE)
    leaves = finite_leaves([torch.full(shape, 1.5), params])
    outputs = ops.affine_coupling(*leaves, form=name)
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    for value in (*outputs, *(leaf.grad for leaf in leaves)):
        assert_no_nan(value.detach(), [raw], name)


# Whose outputs depend on one element of the main tensor each, or on one example, and are not finite where it is not.
ELEMENTWISE = [
    name
    for name in SAMPLES
    if name.startswith(("affine_coupling.", "discretized_logistic", "gaussian_log_prob.", "rounding_coupling."))
    and not name.endswith("from_output")
]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_non_finite_element_stays_in_its_place(backend: str, name: str, bad: float) -> None:
    """One non-finite ``x`` in the second of three examples: every other element has the bits it had before."""
    sample = SAMPLES[name]
    args = sample.arguments((3, 5, 7), torch.float32)
    before = sample.function(*args.values())
    args["x"][1, 2, 3] = bad
    for clean, dirty in zip(before, sample.function(*args.values()), strict=True):
        hit = torch.zeros_like(clean, dtype=torch.bool)
        hit[(1, 2, 3) if clean.ndim == 3 else (1,)] = True
        assert torch.equal(clean[~hit], dirty[~hit])
        is_log_det = "params" in args and clean.ndim == 1
        assert bool(dirty[hit].isfinite()) == is_log_det
        assert is_log_det or bool(dirty[hit].isnan()) == (bad != bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("name", SAMPLES)
def test_non_finite_number_stays_in_its_example(backend: str, name: str, bad: float) -> None:
    """One in the second example of each argument in turn: the results of the others have the bits they had before."""
    sample = SAMPLES[name]
    shape = a_shape(sample, (4, 5, 7), (4, 7), (4, 3, 5, 7))
    args = sample.arguments(shape, torch.float32)
    before = sample.function(*args.values())
    for argument, value in args.items():
        if value.shape[0] != shape[0] or argument in ("w1", "b1", "w2", "b2", "w3", "b3"):
            continue  # shared by the batch
        dirty = args | {argument: value.clone()}
        dirty[argument][1].view(-1)[0] = bad
        for clean, got in zip(before, sample.function(*dirty.values()), strict=True):
            assert torch.equal(clean[[0, 2, 3]], got[[0, 2, 3]]), argument


@pytest.mark.parametrize("name", SAMPLES)
def test_nan_in_any_argument_is_passed_on(backend: str, name: str) -> None:
    sample = SAMPLES[name]
    shape = a_shape(sample, (4, 5, 7), (4, 7), (4, 3, 5, 7))
    for argument, value in sample.arguments(shape, torch.float32).items():
        args = sample.arguments(shape, torch.float32) | {argument: value}
        value.view(-1)[0] = float("nan")
        outputs = sample.function(*args.values())
        assert any(bool(out[0].isnan().any()) for out in outputs), argument


@pytest.mark.parametrize("x", [float("inf"), float("-inf")])
def test_log_probability_at_infinity_is_minus_infinity(backend: str, x: float) -> None:
    value = torch.full((4, 3), x)
    zeros = torch.zeros(4, 3)
    assert bool((ops.discretized_logistic_log_prob(value, zeros, zeros) == -torch.inf).all())
    stacked = torch.zeros(4, 2, 3)
    assert bool((ops.discretized_logistic_mixture_log_prob(value, stacked, stacked, stacked) == -torch.inf).all())
    assert bool((ops.gaussian_log_prob(value) == -torch.inf).all())


@pytest.mark.parametrize(("log_scale", "bound"), [(-70.0, -69.0), (-80.0, -69.0), (61.0, 60.0), (85.0, 60.0)])
@pytest.mark.parametrize("distance", [0.0, 3.0, -1e4])
def test_scales_are_held_as_the_docstring_says(backend: str, distance: float, log_scale: float, bound: float) -> None:
    """Value and gradients are those at the bound; above it the value falls on by what is cut off."""
    x, mean, weights = torch.full((1, 1), distance), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    for call in (
        lambda x, s: ops.discretized_logistic_log_prob(x, mean[:, 0], s[:, 0]),
        lambda x, s: ops.discretized_logistic_mixture_log_prob(x, weights, mean, s),
    ):
        results = []
        for value in (log_scale, bound):
            leaves = finite_leaves([x, torch.full((1, 2, 1), value)])
            out = call(*leaves)
            results.append((out.detach() + max(value - bound, 0.0), *torch.autograd.grad(out, leaves)))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-6)


def test_overflow_of_the_scale_is_infinite(backend: str) -> None:
    params = torch.tensor([[100.0, 0.5], [-200.0, 0.5]])
    y, log_det = ops.affine_coupling(torch.ones(2, 1), params)
    assert y.tolist() == [[float("inf")], [0.5]]
    assert log_det.tolist() == [100.0, -200.0]


def test_poison_reaches_memory_that_operators_allocate() -> None:
    """What the whole folder relies on: unwritten memory is NaN, for the allocations that C++ code makes as well."""
    x = inputs.normal(0, (2, 3, 4, 5), torch.float32)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    made = [
        torch.ops.aten.empty_like(x),
        torch.ops.aten.empty_like(channels_last),
        torch.ops.aten.empty_like(channels_last[:, :2]),
        torch.ops.aten.new_empty(x, [7]),
        torch.ops.aten.empty_strided([7], [2]),
        torch.ops.aten.empty.memory_format([7], dtype=torch.float64),
    ]
    assert all(bool(value.isnan().all()) for value in made)


@pytest.mark.parametrize("elements", [1000, 300000])
def test_poison_reaches_memory_beside_the_dispatcher(elements: int) -> None:
    """What kernels allocate by themselves comes from ``malloc``, which glibc fills on request."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    bits = torch.empty(elements).view(torch.int32)
    assert platform.libc_ver()[0] != "glibc" or bool((bits == POISON_BYTE * 0x01010101).all())
