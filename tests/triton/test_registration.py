"""Attaching the kernels without loading triton; what the compiler sees; explicit choice fails with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hybridkern
from hybridkern import ops
from hybridkern.ops import _backends
from hybridkern.ops._operator import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton", reason="the package triton is not installed")
PARTS = [part for operator in OPERATORS.values() if operator.triton for part in operator.parts]

# Fake CUDA tensors need no device; functionalization is where AOTAutograd decomposes operators.
TRACE = """
import logging, sys
import hybridkern.ops as ops
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from hybridkern.ops.rational_quadratic_spline.form import resolve_spline
assert "hybridkern.ops._triton.launch" not in sys.modules, "triton's kernels were loaded at import"
import torch
from torch._functorch._aot_autograd.functional_utils import from_fun, to_fun
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
logging.disable(logging.CRITICAL)  # without a driver torch cannot look into a kernel, and says so
form = NAMED_FORMS["glow"].spec(False)
spline = resolve_spline("nflows").spec(8, (-3.0, 3.0), "linear", False)
low = torch.ops.hybridkern

def functional(function):
    def traced(*args):
        with FunctionalTensorMode():
            out = function(*(to_fun(a) for a in args))
            return [from_fun(v) for v in (out if isinstance(out, tuple) else (out,))]
    return traced

with FakeTensorMode(allow_non_fake_inputs=True):
    x, p, g = (torch.empty(s, device=DEVICE) for s in ((4, 3, 8, 8), (4, 6, 8, 8), (4,)))
    q = torch.empty((4, 69, 8, 8), device=DEVICE)
    k, one = torch.empty((4, 5, 3, 8, 8), device=DEVICE), torch.empty((1,), device=DEVICE)
    w = torch.empty((6, 6), device=DEVICE)
    net = [torch.empty(s, device=DEVICE) for s in ((32, 3, 3, 3), (32,), (32, 32, 1, 1), (32,), (6, 32, 3, 3), (6,))]
    kept = torch.empty((8, 32, 32), dtype=torch.bfloat16, device=DEVICE)
    for function, args in (
        (lambda x, p, g: low.affine_coupling_forward(x, p, g, *form), (x, p, g)),
        (lambda x, p, g: low.affine_coupling_backward(x, p, x, g, *form), (x, p, g)),
        (lambda x, p, g: low.affine_coupling_backward_from_output(x, p, x, g, *form), (x, p, g)),
        (lambda x, t, b: low.rounding_coupling_forward(x, t, b, False), (x, x, one)),
        (lambda x, t, b: low.rounding_coupling_backward(x, t, b, False), (x, x, one)),
        (lambda x, m, s: low.discretized_logistic_forward(x, m, s, 1.0, True), (x, x, x)),
        (lambda g, x, m: low.discretized_logistic_backward(g, x, m, m, 1.0, True), (g, x, x)),
        (lambda x, k: low.discretized_logistic_mixture_forward(x, k, k, k, 1.0, True), (x, k)),
        (lambda g, x, k: low.discretized_logistic_mixture_backward(g, x, k, k, k, 1.0, True), (g, x, k)),
        (lambda x: low.gaussian_log_prob_forward(x, None, None), (x,)),
        (lambda g, x, m: low.gaussian_log_prob_backward(g, x, m, m), (g, x, x)),
        (lambda x, w: low.paired_conv1x1_forward(x, x, w, None), (x, w)),
        (lambda g, x, w: low.paired_conv1x1_backward(g, g, x, x, w), (x, x, w)),
        (lambda x, q, g: low.rational_quadratic_spline_forward(x, q, g, *spline), (x, q, g)),
        (lambda x, q, g: low.rational_quadratic_spline_backward(x, q, x, g, *spline), (x, q, g)),
        (lambda x, *w: low.coupling_network_forward(x, *w, True, True), (x, *net)),
        (lambda p, x, h, *w: low.coupling_network_backward(p, x, *w, h, h, True, True), (p, x, kept, *net)),
    ):
        names = [str(node.target) for node in make_fx(functional(function))(*args).graph.nodes]
        kernels = sum("triton_kernel_wrapper" in name for name in names)
        print(kernels, sum("hybridkern" in name for name in names))
"""


def trace(device: str) -> list[list[int]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = TRACE.replace("DEVICE", repr(device))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def test_the_compiler_sees_the_kernels_on_a_gpu() -> None:
    counts = trace("cuda")
    assert len(counts) == len(PARTS)
    assert all(kernels >= 1 and opaque == 0 for kernels, opaque in counts), counts


def test_operators_stay_whole_on_a_cpu() -> None:
    counts = trace("cpu")
    assert len(counts) == len(PARTS)
    assert all(kernels == 0 and opaque == 1 for kernels, opaque in counts), counts


def test_every_operator_is_attached() -> None:
    for name in PARTS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"hybridkern::{name}", "CUDA"), name


def test_triton_without_a_device_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("triton", "cuda"):
        with pytest.raises(RuntimeError, match=f"backend '{name}' is not available: torch sees no CUDA or ROCm"):  # noqa: SIM117
            with hybridkern.use_backend(name):
                pass


def test_chosen_triton_refuses_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with hybridkern.use_backend("triton"), pytest.raises(RuntimeError, match=r"'triton' was chosen .* x is on cpu"):
        ops.gaussian_log_prob(torch.zeros(2, 3))


def test_interpreter_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET: expected 1"), _backends.interpret_triton():
        pass
