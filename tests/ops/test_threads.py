"""Compiled kernels give the same bits whatever the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.conftest import COMPILED_BACKENDS
from tests.ops import layouts
from tests.ops.calls import CALLS, assert_same_bits, run

SHAPES = [(3, 7), (300, 3, 16, 16), (5000, 33), (2, 3, 100, 101), (1, 70001)]

pytestmark = pytest.mark.parametrize("backend", COMPILED_BACKENDS, indirect=True)


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results_by_threads(name: str, shape: tuple[int, ...], place=layouts.contiguous) -> list[dict[str, torch.Tensor]]:
    call, results = CALLS[name], []
    args = {key: place(value) for key, value in call.arguments(shape, torch.float32).items()}
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        results.append(run(call.function, args))
    return results


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_same_bits(backend: str, name: str, shape: tuple[int, ...]) -> None:
    first, *others = results_by_threads(name, shape)
    for threads, other in enumerate(others, 2):
        assert_same_bits(other, first, f"{threads} threads:")


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_in_channels_last(backend: str, name: str) -> None:
    first, *others = results_by_threads(name, (40, 6, 17, 16), layouts.channels_last)
    for threads, other in enumerate(others, 2):
        assert_same_bits(other, first, f"{threads} threads:")


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_again(backend: str, name: str) -> None:
    torch.set_num_threads(4)
    call = CALLS[name]
    args = call.arguments((300, 3, 16, 16), torch.float32)
    first = run(call.function, args)
    for _ in range(3):
        assert_same_bits(run(call.function, args), first, "repeated:")
