"""What an installation holds and says: metadata, the fallback without the extension, the report."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import hybridkern
from hybridkern import _extension

ROOT = Path(__file__).resolve().parents[1]


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDKERN_")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**kept, **variables}, check=False
    )


try:
    INSTALLED = bool(metadata.version("hybridkern"))
except metadata.PackageNotFoundError:
    INSTALLED = False
needs_installation = pytest.mark.skipif(not INSTALLED, reason="runs from a source tree that is not installed")


@needs_installation
def test_metadata() -> None:
    found = metadata.metadata("hybridkern")
    assert found["Version"] == hybridkern.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert {"train", "triton", "test", "peers", "dev"} <= set(found.get_all("Provides-Extra"))
    core = [line for line in metadata.requires("hybridkern") or [] if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in core) == ["numpy", "torch"]


@needs_installation
def test_console_script() -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name="hybridkern")
    module, _, function = entry.value.partition(":")
    assert callable(getattr(import_module(module), function))


def test_typed() -> None:
    assert (Path(hybridkern.__file__).parent / "py.typed").is_file()


USE_TWICE = """
import warnings, torch, hybridkern
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        hybridkern.ops.gaussian_log_prob(torch.zeros(2, 3))
print(len(seen), *(w.message for w in seen))
"""


def test_without_extension_says_so_once() -> None:
    done = run_python("-c", USE_TWICE, HYBRIDKERN_NO_EXT="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ")
    assert "reference backend" in done.stdout
    assert "HYBRIDKERN_NO_EXT" in done.stdout


def test_explicit_choice_never_falls_back() -> None:
    done = run_python("-c", "import hybridkern", HYBRIDKERN_NO_EXT="1", HYBRIDKERN_BACKEND="cpp")
    assert done.returncode != 0
    assert "HYBRIDKERN_BACKEND=cpp" in done.stderr
    assert "HYBRIDKERN_NO_EXT" in done.stderr


@pytest.mark.parametrize("switch", ["0", "1"])
def test_report(switch: str) -> None:
    done = run_python("-m", "hybridkern.report", HYBRIDKERN_NO_EXT=switch)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("reference", "cpp", "triton", "cuda", "instruction set in use", "architectures", "torch", "threads"):
        assert word in done.stdout
    assert hybridkern.__version__ in done.stdout


@pytest.mark.parametrize(
    ("built", "running", "reason"),
    [("none", "2.13.0", "were not built"), ("2.13.0+cpu", "2.14.0+cpu", "were built for torch 2.13.0")],
)
def test_autograd_nodes_of_another_torch_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, built: str, running: str, reason: str
) -> None:
    """Their interface changes between releases: loading them anyway might crash."""
    module = SimpleNamespace(build_info=lambda: {"autograd_nodes": built})
    monkeypatch.setattr(_extension, "extension", _extension.Extension(module, ""))
    monkeypatch.setattr(_extension.torch, "__version__", running)
    monkeypatch.setattr(_extension.importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    state = _extension._load_nodes()
    assert state.module is None
    assert reason in state.reason
