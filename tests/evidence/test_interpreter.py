"""The interpreter's audit finds every planted fault, and none in a correct kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.evidence.toolchain import require_triton

require_triton(module=True)

from tests.evidence.access import once_each  # noqa: E402
from tests.evidence.interpreter import Audit, audited, bfloat16_bits  # noqa: E402
from tests.evidence.planted import triton_kernels as planted  # noqa: E402

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _inputs(dtype: torch.dtype, shape: tuple[int, int] = (37, 50)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, s, t = (torch.randn(shape, generator=generator) for _ in range(3))
    return [x.to(dtype), (0.1 * s).to(dtype), t.to(dtype)]


def _audit(kernel, dtype: torch.dtype = torch.float32, order: str = "in order", **options) -> Audit:
    with audited(order) as audits:
        planted.launch(kernel, *_inputs(dtype), **options)
    (audit,) = audits
    return audit


@pytest.mark.parametrize("order", ["in order", "reversed", "shuffled"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_correct_kernel_is_clean_and_right(dtype, order):
    x, s, t = _inputs(dtype)
    with audited(order) as audits:
        y, total = planted.launch(planted.correct, x, s, t)
    (audit,) = audits
    assert audit.findings == () and once_each(audit) == []
    exact = x.double().numpy() * np.exp(s.double().numpy()) + t.double().numpy()
    eps = torch.finfo(dtype).eps
    assert np.all(np.abs(y.double().numpy() - exact) <= 0.51 * eps * np.maximum(np.abs(exact), 1e-2) + 3e-7)
    # a sum in float32 of some dozens of numbers of order 1
    assert np.allclose(total.numpy(), s.double().numpy().sum(1), atol=1e-5)


def test_bfloat16_is_rounded_to_nearest_even():
    values = np.array([1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-12, -3.3e38, np.inf, np.nan], np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bfloat16_bits(values)[:-1], expected[:-1]) and np.isnan(values[-1])


def test_without_the_patch_bfloat16_is_cut_off():
    """The day this fails, triton rounds by itself and the patch can go."""
    x, s, t = _inputs(torch.bfloat16)
    with audited():
        rounded, _ = planted.launch(planted.correct, x, s, t)
    cut_off, _ = planted.launch(planted.correct, x, s, t)
    assert not torch.equal(rounded, cut_off)


def test_it_finds_a_second_read():
    audit = _audit(planted.reads_twice)
    assert audit.findings == () and once_each(audit) == [
        "triton_kernels.reads_twice: s_ptr is read 2 to 2 times an element"
    ]


def test_it_finds_an_access_out_of_bounds_and_leaves_it_out():
    assert _audit(planted.out_of_bounds).of_kind("out of bounds")


def test_it_finds_a_race_between_programs():
    assert _audit(planted.correct, columns=1).findings == ()
    assert _audit(planted.races, columns=2).of_kind("race")


def test_it_finds_a_read_of_memory_that_nobody_wrote():
    (finding,) = _audit(planted.adds_to_nothing).of_kind("uninitialized")
    assert finding.where == "y_ptr"


def test_it_finds_a_load_of_the_own_store_without_barrier():
    (finding,) = _audit(planted.loads_its_own_store).of_kind("race")
    assert finding.where == "y_ptr" and "barrier" in finding.detail
    assert _audit(planted.loads_its_own_store_after_a_barrier).findings == ()


def test_order_of_programs_matters_where_one_reads_what_another_writes():
    x, s, t = _inputs(torch.float32)
    results = []
    for order in ("in order", "reversed"):
        with audited(order) as audits:
            results.append(planted.launch(planted.depends_on_order, x, s, t)[0].nan_to_num())
        assert audits[0].of_kind("race")
    assert not torch.equal(*results)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order: got 'random'"), audited("random"):
        pass
