"""C++ nodes take CUDA tensors, of operators whose kernels are registered for them and of no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is not installed")

from hybridkern._extension import nodes
from hybridkern.ops import _gpu
from hybridkern.ops._triton.plans import launcher_by_launcher
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from tests.triton.on_paper import on_paper

pytestmark = pytest.mark.skipif(nodes.module is None, reason=nodes.reason)
SPEC = NAMED_FORMS["glow"].spec(False)


@pytest.fixture
def launched() -> Iterator[list[str]]:
    """The parts that were called; their outputs are their first arguments."""
    parts: list[str] = []

    def launcher(part: str) -> Any:
        return lambda *args: (parts.append(part), (args[0], args[2]))[1]

    with mock.patch.object(_gpu, "launcher", launcher), launcher_by_launcher():
        yield parts


def arguments() -> tuple[Any, ...]:
    return *(on_paper(torch.zeros(size)) for size in ((2, 3, 4), (2, 6, 4), (2,))), *SPEC


@pytest.mark.skipif(torch.cuda.is_available(), reason="the memory is not a GPU's")
def test_a_node_calls_the_kernel_of_cuda_tensors(launched: list[str]) -> None:
    args = arguments()
    y, log_det = nodes.module.affine_coupling(*args)
    assert y.is_cuda and y.data_ptr() == args[0].data_ptr() and log_det.shape == (2,)
    assert launched == ["affine_coupling_forward"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the memory is not a GPU's")
def test_what_is_not_the_kernels_is_handed_back(launched: list[str]) -> None:
    x, params, log_det, *spec = arguments()
    assert nodes.module.affine_coupling(x, torch.zeros(2, 6, 4), log_det, *spec) is None  # on the CPU
    assert nodes.module.affine_coupling(x, on_paper(torch.zeros(2, 5, 4)), log_det, *spec) is None
    assert nodes.module.lipswish(x, on_paper(torch.zeros(1))) is None  # has no kernel for GPUs
    try:
        nodes.module.serve_cuda(["paired_conv1x1"])
        assert nodes.module.affine_coupling(x, params, log_det, *spec) is None
    finally:
        nodes.module.serve_cuda([*_gpu.state.native, *_gpu.triton_operators()])
    assert launched == []
