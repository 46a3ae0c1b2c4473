"""Compiled kernels give the same bits whatever the number of threads."""

from __future__ import annotations

import pytest
import torch

from hybridkern import ops
from tests.conftest import COMPILED_BACKENDS
from tests.ops import layouts
from tests.ops.samples import SAMPLES, assert_same_bits, run

SHAPES = [(3, 7), (5000, 33), (1, 70001), (300, 3, 16, 16), (2, 3, 100, 101)]
CHANNELS_LAST = (40, 6, 17, 16)
CALLS = [(name, shape) for name, sample in SAMPLES.items() for shape in SHAPES if sample.takes(shape)]

pytestmark = [
    pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True),
    pytest.mark.usefixtures("threads_restored"),
]


def assert_same_for_all_threads(name: str, shape: tuple[int, ...], place=layouts.contiguous, most: int = 4) -> None:
    args = {key: place(value) for key, value in SAMPLES[name].arguments(shape, torch.float32).items()}
    results = []
    for threads in range(1, most + 1):
        torch.set_num_threads(threads)
        results.append(run(SAMPLES[name].function, args))
    for threads, other in enumerate(results[1:], 2):
        assert_same_bits(other, results[0], f"{threads} threads:")


@pytest.mark.parametrize(("name", "shape"), CALLS, ids=str)
def test_same_bits(backend: str, name: str, shape: tuple[int, ...]) -> None:
    assert_same_for_all_threads(name, shape)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.takes(CHANNELS_LAST)])
def test_same_bits_in_channels_last(backend: str, name: str) -> None:
    assert_same_for_all_threads(name, CHANNELS_LAST, layouts.channels_last)


@pytest.mark.parametrize("name", SAMPLES)
def test_same_bits_again(backend: str, name: str) -> None:
    torch.set_num_threads(4)
    sample = SAMPLES[name]
    args = sample.arguments((300, 3, 16, 16) if sample.takes((300, 3, 16, 16)) else (5000, 33), torch.float32)
    first = run(sample.function, args)
    for _ in range(3):
        assert_same_bits(run(sample.function, args), first, "repeated:")


@pytest.mark.parametrize("threads", [1, 4])
def test_tails_below_normal_numbers_are_zero_and_torch_keeps_its_own(backend: str, threads: int) -> None:
    """They cost Intel's processors a hundred times the rest; the mode of the processor is put back."""
    torch.set_num_threads(threads)
    x, logits = torch.zeros(64, 500), torch.zeros(64, 2, 500)
    mean = torch.tensor([0.0, 95.0]).reshape(1, 2, 1).expand_as(logits).clone().requires_grad_()
    log_p = ops.discretized_logistic_mixture_log_prob(x, logits, mean, torch.zeros_like(logits))
    (slope,) = torch.autograd.grad(log_p.sum(), mean)  # of the far component exp(-94.6)
    assert not slope[:, 1].any()
    assert bool((torch.exp(torch.full((64, 2000), -100.0)) > 0).all())
