"""Tensors without memory: results, forward and backward, have the shapes and dtypes they have on a CPU."""

from __future__ import annotations

import pytest
import torch

import hybridkern
from tests.ops.samples import SAMPLES, Results, a_shape, run

KINDS = [(name, dtype) for name, sample in SAMPLES.items() for dtype in sample.dtypes]


def forms(results: Results) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in results.items()}


@pytest.mark.parametrize(("name", "dtype"), KINDS, ids=str)
def test_meta(name: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[name]
    args = sample.arguments(a_shape(sample, (3, 4, 5), (3, 4), (3, 4, 5, 6)), dtype)
    with hybridkern.use_backend("auto"):
        got = run(sample.function, {key: value.to("meta") for key, value in args.items()})
    assert all(value.is_meta for value in got.values())
    assert forms(got) == forms(run(sample.function, args))


@pytest.mark.parametrize("name", SAMPLES)
def test_compiled_kernels_refuse_them(backend: str, name: str) -> None:
    """An explicit choice says why it does not serve them; the formulas do."""
    sample = SAMPLES[name]
    args = sample.arguments(a_shape(sample, (3, 4, 5), (3, 4), (3, 4, 5, 6)), torch.float32)
    values = [value.to("meta") for value in args.values()]
    if backend == "reference":
        assert all(out.is_meta for out in sample.function(*values))
        return
    with pytest.raises(RuntimeError, match=f"backend '{backend}' was chosen and .* x is on meta"):
        sample.function(*values)
