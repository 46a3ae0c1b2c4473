"""Compiled kernels, executed: a correct one is clean and right, and every planted fault is found."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from tests.evidence.nvcc import compile_cuda
from tests.evidence.ptx import Execution, Fault, execute, parse
from tests.evidence.shadow import of_kind
from tests.evidence.toolchain import require_nvcc, require_triton
from tests.evidence.triton_compile import NVIDIA_TARGETS

SOURCE = "tests/evidence/planted/cuda_kernels.cu"
TRAFFIC = 1.02


def _data(dtype: torch.dtype, rows: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, s, t = (0.3 * torch.randn(rows, width, generator=generator) for _ in range(3))
    return {"x": x.to(dtype), "s": s.to(dtype), "t": t.to(dtype)}


def _outputs(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rows = data["x"].shape[0]
    return {"y": torch.full_like(data["x"], float("nan")), "sum": torch.full((rows,), float("nan"))}


def _assert_right(data: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor]) -> None:
    x, s, t = (data[name].double().numpy() for name in ("x", "s", "t"))
    exact = x * np.exp(s) + t
    allowed = 0.51 * torch.finfo(data["x"].dtype).eps * np.abs(exact) + 4e-7 * (np.abs(x) + np.abs(t))
    assert np.all(np.abs(outputs["y"].double().numpy() - exact) <= allowed)
    # a sum in float32, by a tree over a block, of a thousand numbers of order 1
    assert np.allclose(outputs["sum"].numpy(), s.sum(1), atol=1e-5)


def _run_cuda(dtype: torch.dtype, target: str, bug: str = "", rows: int = 5, width: int = 1032) -> Execution:
    ptx = compile_cuda(SOURCE, target, flags=(f"-DBUG_{bug}",) if bug else ()).decode()
    data = _data(dtype, rows, width)
    outputs = _outputs(data)
    tensors = data | outputs
    pointers = [struct.pack("<Q", tensors[name].data_ptr()) for name in ("x", "s", "t", "y", "sum")]
    kernel = parse(ptx, "IfL" if dtype is torch.float32 else "bfloat16")
    execution = execute(kernel, (rows, 1, 1), 128, [*pointers, struct.pack("<i", width)], tensors)
    if not bug:
        _assert_right(data, outputs)
    return execution


@pytest.mark.parametrize("target", NVIDIA_TARGETS)
@pytest.mark.parametrize("width", [1024, 1032])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_correct_cuda_kernel_is_clean_and_right(dtype, width, target):
    require_nvcc()
    execution = _run_cuda(dtype, target, width=width)
    assert execution.findings == ()
    minimum = 4 * 5 * width * dtype.itemsize + 5 * 4
    assert execution.sectors.bytes / minimum >= 1.0
    if width % 16 == 0:  # else rows begin within sectors, which two rows then share
        assert execution.sectors.bytes / minimum < TRAFFIC


@pytest.mark.parametrize(
    ("bug", "kind"),
    [("RACE", "race"), ("BOUNDS", "out of bounds"), ("UNINITIALIZED", "out of bounds"), ("BLOCKS", "race")],
)
def test_it_finds_what_a_cuda_kernel_does_wrong(bug, kind):
    require_nvcc()
    assert of_kind(_run_cuda(torch.float32, "sm_80", bug).findings, kind)


@pytest.mark.parametrize(
    ("bug", "message"), [("ALIGN", "misaligned"), ("BARRIER", "barrier"), ("SHUFFLE", "lanes named in the mask")]
)
def test_it_stops_where_a_cuda_kernel_cannot_go_on(bug, message):
    require_nvcc()
    with pytest.raises(Fault, match=message):
        _run_cuda(torch.float32, "sm_80", bug)


class TestTriton:
    """The same of Triton's kernels, found by what their launches recorded."""

    @pytest.fixture(autouse=True)
    def _needs_triton(self):
        require_triton()

    @staticmethod
    def _run(kernel: str, dtype: torch.dtype, target: str, shape: tuple[int, int], columns: int = 1):
        from tests.evidence.interpreter import audited
        from tests.evidence.planted import triton_kernels as planted
        from tests.evidence.ptx_run import run_ptx

        data = _data(dtype, *shape)
        with audited() as audits:
            planted.launch(getattr(planted, kernel), *data.values(), columns=columns)
        outputs = _outputs(data)
        arguments = dict(audits[0].launch.arguments) | {"y_ptr": outputs["y"], "sum_ptr": outputs["sum"]}
        return run_ptx(audits[0].launch, target, arguments), data, outputs

    @pytest.mark.parametrize("target", NVIDIA_TARGETS)
    @pytest.mark.parametrize("shape", [(16, 256), (37, 50)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_a_correct_kernel_is_clean_and_right(self, dtype, shape, target):
        run, data, outputs = self._run("correct", dtype, target, shape)
        _assert_right(data, outputs)
        assert run.execution.findings == ()
        if shape == (16, 256):
            assert 1.0 <= run.traffic < TRAFFIC

    def test_it_sees_what_a_second_read_costs(self):
        run, _, _ = self._run("reads_twice", torch.float32, "sm_80", (16, 256))
        # the compiler may keep the first read; then there is nothing to see, which is as good
        assert run.execution.findings == ()

    def test_it_finds_an_access_out_of_bounds(self):
        run, _, _ = self._run("out_of_bounds", torch.float32, "sm_90", (37, 50))
        assert of_kind(run.execution.findings, "out of bounds")

    def test_it_finds_a_race_between_blocks(self):
        run, _, _ = self._run("races", torch.float32, "sm_90", (16, 256), columns=2)
        assert of_kind(run.execution.findings, "race")
