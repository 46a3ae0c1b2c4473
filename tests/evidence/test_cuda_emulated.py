"""The ``.cu`` files compiled by g++ and run on the CPU: operator tests, sanitizers, bugs put in on purpose."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence.emu import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the sanitizers' switches are x86-64's"),
]
SUITES = ("test_shapes.py", "test_layouts.py", "test_accuracy_rounding.py", "test_backward_from_output.py")
ASAN = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TSAN = ("-fsanitize=thread",)  # races between threads of a block
TSAN_BLOCKS = (*TSAN, "-DHK_WHOLE_BLOCKS")  # races between blocks


def test_operator_tests_pass_emulated() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYBRIDKERN_BACKEND": "auto"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.evidence.emu.plugin"]
    command += [f"tests/ops/{name}" for name in SUITES]
    done = subprocess.run(command, cwd=build.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed, launched = re.search(r"(\d+) passed", done.stdout), re.search(r"launched: (\d+)", done.stdout)
    assert passed is not None and int(passed[1]) >= 100
    assert launched is not None and int(launched[1]) > 2 * int(passed[1])


def program(csrc: Path, folder: Path, sanitizer: tuple[str, ...], *options: str) -> subprocess.CompletedProcess[str]:
    """Compile the standalone test with the kernels in ``csrc`` and run it."""
    source = build.HERE / "kernels_test.cpp"
    command = ["g++", *build.COMMON, "-O1", "-g", *sanitizer, *options, f"-I{csrc}", str(source)]
    path = build.compiled("kernels_test", command, folder / ("_".join((*sanitizer, *options)).replace("/", "")))
    # without address randomization, which not every thread sanitizer stands
    return subprocess.run(["setarch", "-R", str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "options",
    [ASAN, (*TSAN, "-DHK_SMALL"), (*TSAN_BLOCKS, "-DHK_SMALL")],
    ids=["address_undefined_all_cases", "threads_small_shapes", "blocks_small_shapes"],
)
def test_kernels_are_clean(options: tuple[str, ...]) -> None:
    done = program(build.ROOT / "csrc", build.BUILD / build.build_key(*options), options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "0 failures" in done.stdout


# name: file, text, what stands in its place, sanitizer, what is said of it
BUGS = {
    "write_past_the_end": (
        "affine_coupling/cuda.cuh",
        "store(c.y, place_of(c.walk, share.b, e), y);",
        "store(c.y, place_of(c.walk, share.b, e + N), y);",
        ASAN,
        "heap-buffer-overflow",
    ),
    "missing_barrier": (
        "cuda/rows.cuh",
        "warps[threadIdx.x / warp_threads] = value;\n  __syncthreads();",
        "warps[threadIdx.x / warp_threads] = value;",
        TSAN,
        "data race",
    ),
    "blocks_that_race": (
        "discretized_logistic/cuda.cuh",
        "T* to = s.partial + slab * 2 * c.walk.row + e;",
        "T* to = s.partial + e;",
        TSAN_BLOCKS,
        "data race",
    ),
    "divergent_barrier": (
        "cuda/rows.cuh",
        "  __syncthreads();  // the sums",
        "  if (threadIdx.x < 64) __syncthreads();  // the sums",
        ASAN,
        "__syncthreads",
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_put_in_on_purpose_is_found(name: str, tmp_path: Path) -> None:
    file, text, instead, sanitizer, says = BUGS[name]
    shutil.copytree(build.ROOT / "csrc", tmp_path / "csrc")
    path = tmp_path / "csrc" / file
    source = path.read_text()
    assert source.count(text) == 1
    path.write_text(source.replace(text, instead))
    done = program(tmp_path / "csrc", tmp_path, sanitizer, "-DHK_SMALL")
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
