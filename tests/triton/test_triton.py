"""The Triton backend, interpreted: the operators' suites, in processes that start with ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")

ROOT = Path(__file__).resolve().parents[2]
_SPLINE = "tests/ops/test_rational_quadratic_spline.py::test_"
# Every form, direction and operator, and low precision: a selection, since the interpreter is slow. All of it:
# TRITON_INTERPRET=1 HYBRIDKERN_NO_EXT=1 python -m pytest -p tests.triton.interpreted tests/ops tests/triton/interpreter
SUITES = {
    "couplings": (
        "tests/ops/test_accuracy_coupling.py::test_random_batch",
        "tests/ops/test_backward_from_output.py::test_every_form",
        "tests/ops/test_accuracy_rounding.py",
    ),
    "densities": ("tests/ops/test_accuracy_densities.py",),
    "launchers": ("tests/triton/interpreter",),
    "matrix": (
        "tests/ops/test_paired_conv1x1.py::test_sizes",
        "tests/ops/test_paired_conv1x1.py::test_without_bias_and_one_output_used",
        "tests/ops/test_paired_conv1x1.py::test_nan_and_infinity_are_passed_on_in_their_pixel",
    ),
    "network": (
        "tests/ops/test_coupling_network.py::test_accuracy",
        "tests/ops/test_coupling_network.py::test_non_finite_numbers_stay_where_they_reach",
    ),
    "spline": (
        _SPLINE + "interval_may_be_any",
        _SPLINE + "angles_come_from_anywhere",
        _SPLINE + "zeros_are_the_identity",
        _SPLINE + "shared_parameters_are_those_of_every_example[triton-(2, 300)]",
    ),
    "low_precision": ("tests/ops/test_low_precision.py",),
    "layouts": (
        "tests/ops/test_layouts.py::test_coupling_on_half_of_one_tensor",
        "tests/ops/test_layouts.py::test_coupling_log_det_with_a_stride",
        "tests/ops/test_layouts.py::test_output_lies_like_the_main_tensor",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_interpreted(suite: str) -> None:
    # programs of four warps, also where kernels have fewer: their number is what costs time here
    environment = os.environ | {"TRITON_INTERPRET": "1", "HYBRIDKERN_NO_EXT": "1", "OMP_NUM_THREADS": "1"}
    environment["HYBRIDKERN_TRITON_WARPS"] = "4"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.triton.interpreted", *SUITES[suite]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout[-300:]
