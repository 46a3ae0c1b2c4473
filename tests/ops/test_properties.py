"""Laws that hold for every input, on inputs that hypothesis picks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridkern import ops
from tests._tolerances import ROUND_TRIP_FACTOR, TOLERANCES, to_numpy
from tests.ops import inputs, oracle

F32, F64 = torch.float32, torch.float64
law = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    # the fixtures set a backend and poison memory: the same for every example
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**32 - 1)
shapes = st.one_of(
    st.tuples(st.integers(0, 9), st.integers(1, 40)),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
)
steps = st.integers(-640, 640).map(lambda k: k / 64)  # sums and differences of these are exact


@law
@given(name=st.sampled_from(list(oracle.FORMS)), shape=shapes, seed=seeds, dtype=st.sampled_from([F32, F64]))
def test_coupling_inverse_undoes_forward(backend: str, name: str, shape, seed: int, dtype: torch.dtype) -> None:
    """``x`` comes back to within the rounding of ``y``, and the log-determinants cancel."""
    x, params = inputs.normal(seed, shape, dtype), inputs.coupling_params(name, shape, dtype, seed, reach=0.5)
    y, log_det = ops.affine_coupling(x, params, form=name)
    back, rest = ops.affine_coupling(y, params, log_det, form=name, inverse=True)
    raw, t = oracle.split(to_numpy(params), oracle.FORMS[name])
    log_s = 0 * t if raw is None else oracle.FORMS[name].log_scale(raw)
    size = np.abs(to_numpy(x)) + np.abs(t) * (1 + np.exp(-log_s))
    allowed = ROUND_TRIP_FACTOR * TOLERANCES[dtype].relative
    assert np.all(np.abs(to_numpy(back - x)) <= allowed * size)
    assert np.all(np.abs(to_numpy(rest)) <= allowed * oracle.per_example(np.abs(log_s)))


@law
@given(shape=shapes, seed=seeds, beta=st.floats(-8, 8, width=32), dtype=st.sampled_from([F32, F64]))
def test_rounding_inverse_is_exact(backend: str, shape, seed: int, beta: float, dtype: torch.dtype) -> None:
    x = inputs.normal(seed, shape, dtype, scale=1e5).round()
    t = inputs.normal(seed + 1, shape, dtype, scale=1e4)
    y = ops.rounding_coupling(x, t, beta=beta)
    assert torch.equal(y, y.round())
    assert torch.equal(ops.rounding_coupling(y, t, beta=beta, inverse=True), x)


@law
@given(
    mean=st.floats(-5, 5, width=32),
    log_scale=st.floats(-3, 2, width=32),
    bin_width=st.sampled_from([1.0, 1 / 256, 2 / 255]),
    dtype=st.sampled_from([F32, F64]),
)
def test_logistic_masses_of_all_bins_sum_to_one(
    backend: str, mean: float, log_scale: float, bin_width: float, dtype: torch.dtype
) -> None:
    """Over 40 scales, in units of the bin: beyond lies less than 1e-15."""
    bins = torch.arange(-400, 401, dtype=F64).reshape(1, -1) * bin_width
    place = torch.tensor(mean * bin_width, dtype=dtype)
    scale = torch.tensor(log_scale + np.log(bin_width), dtype=dtype)
    log_p = ops.discretized_logistic_log_prob(bins.to(dtype), place, scale, bin_width=bin_width)
    # float32 lattice points of width 2/255 are themselves rounded, which moves the edges of the bins
    moved = to_numpy(bins.to(dtype).double() - bins).max() * np.exp(-to_numpy(scale))
    assert abs(np.exp(to_numpy(log_p)).sum() - 1) <= 2 * TOLERANCES[dtype].relative + moved


@law
@given(mean=steps, distance=steps, log_scale=st.floats(-10, 10, width=32), bin_width=st.sampled_from([1.0, 1 / 256]))
def test_logistic_is_symmetric(backend: str, mean: float, distance: float, log_scale: float, bin_width: float) -> None:
    x = torch.tensor([mean + distance, mean - distance], requires_grad=True)
    log_p = ops.discretized_logistic_log_prob(x, torch.tensor(mean), torch.tensor(log_scale), bin_width=bin_width)
    log_p.sum().backward()
    assert log_p[0] == log_p[1]
    assert x.grad[0] == -x.grad[1]


@law
@given(seed=seeds, components=st.integers(1, 12), offset=st.floats(-100, 100, width=32))
def test_mixture_does_not_see_order_or_offset_of_its_logits(
    backend: str, seed: int, components: int, offset: float
) -> None:
    full = (3, components, 11)
    x = inputs.normal(seed, (3, 11), F32, scale=4.0)
    params = [inputs.normal(seed + i, full, F32) for i in range(1, 4)]
    log_p = ops.discretized_logistic_mixture_log_prob(x, *params)
    turned = ops.discretized_logistic_mixture_log_prob(x, *(value.flip(1) for value in params))
    shifted = ops.discretized_logistic_mixture_log_prob(x, (params[0].double() + offset).float(), *params[1:])
    size = np.maximum(np.abs(to_numpy(log_p)), 1.0)
    assert np.all(np.abs(to_numpy(turned - log_p)) <= 2 * TOLERANCES[F32].relative * size)
    # adding the offset rounded the logits
    assert np.all(np.abs(to_numpy(shifted - log_p)) <= 4 * TOLERANCES[F32].relative * (size + abs(offset)))


@law
@given(seed=seeds, shape=shapes)
def test_equal_components_are_one_logistic(backend: str, seed: int, shape) -> None:
    x, mean, log_scale = (inputs.normal(seed + i, shape, F32) for i in range(3))
    several = [value.unsqueeze(1).expand(shape[0], 4, *shape[1:]) for value in (mean, log_scale)]
    logits = inputs.normal(seed + 3, (1, 4) + (1,) * (len(shape) - 1), F32)
    mixture = to_numpy(ops.discretized_logistic_mixture_log_prob(x, logits, *several))
    single = to_numpy(ops.discretized_logistic_log_prob(x, mean, log_scale))
    tolerance = TOLERANCES[F32]
    assert np.all(np.abs(mixture - single) <= 2 * np.maximum(tolerance.relative * np.abs(single), tolerance.absolute))


@law
@given(seed=seeds, shape=shapes)
def test_sum_is_the_sum_of_the_elements(backend: str, seed: int, shape) -> None:
    x, mean, log_scale = (inputs.normal(seed + i, shape, F32) for i in range(3))
    each = to_numpy(ops.discretized_logistic_log_prob(x, mean, log_scale))
    total = to_numpy(ops.discretized_logistic_log_prob(x, mean, log_scale, reduction="sum"))
    allowed = 2 * TOLERANCES[F32].relative * oracle.per_example(np.abs(each))
    assert np.all(np.abs(total - oracle.per_example(each)) <= allowed)
