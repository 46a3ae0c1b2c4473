"""The plugin accelerates what a test run builds, and the libraries' own tests of these layers pass on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with the plugin, in a folder that has no settings of ours."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "hybridkern.integrations.pytest_plugin", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_layers_are_accelerated_as_they_are_built(tmp_path: Path) -> None:
    (tmp_path / "test_layers.py").write_text(
        "import normflows as nf\n"
        "from hybridkern.integrations._layer import Accelerated\n"
        "class Mine(nf.flows.Permute): pass\n"
        "def test(request):\n"
        "    assert isinstance(nf.flows.Permute(4), Accelerated)\n"
        "    assert not isinstance(nf.flows.Permute(4, mode='other'), Accelerated)\n"
        "    assert not isinstance(Mine(4), Accelerated)\n"
        "    merge = nf.flows.Merge('checkerboard')\n"
        "    assert merge._hybridkern.memory == request.config.getoption('--hybridkern-memory')\n"
    )
    done = run(tmp_path, "--hybridkern-memory", "recompute")
    assert done.returncode == 0, done.stdout
    assert "1 x normflows.flows.mixing.Permute\n" in done.stdout
    assert "1 x normflows.flows.reshape.Merge\n" in done.stdout


@pytest.mark.parametrize("options", [(), ("--hybridkern-networks", "--hybridkern-memory", "recompute")])
def test_normflows_own_tests(options: tuple[str, ...], tmp_path: Path) -> None:
    """Its wheel holds its tests."""
    modules = [f"normflows.flows.{name}" for name in ("affine.coupling_test", "affine.glow_test", "mixing_test")]
    done = run(tmp_path, *options, "--pyargs", *modules, *(() if options else ("normflows.core_test",)))
    assert done.returncode == 0, done.stdout
    counts = dict(reversed(line.split(" x ")) for line in re.findall(r"^\d+ x \S+$", done.stdout, re.MULTILINE))
    # What the tests of the three modules build by themselves; core_test adds models of couplings.
    built = {"affine.glow.GlowBlock": 7, "affine.coupling.MaskedAffineFlow": 2, "mixing.Permute": 4}
    for layer, least in built.items():
        assert int(counts[f"normflows.flows.{layer}"]) >= least
