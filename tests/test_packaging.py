"""What an installation holds and says: metadata, the fallback without the extension, the report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hybridkern
from hybridkern import _extension, _nvml
from hybridkern._nvml import Machine

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
    assert sorted(line.split(">")[0] for line in core) == ["numpy", "safetensors", "torch"]


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


@pytest.mark.parametrize(
    ("running", "reason"),
    [
        ("2.14.1+cu130", "C++ autograd nodes, built for torch 2.14.1"),
        ("2.15.0", "were built for torch 2.13.0+cpu, 2.11.0, 2.14.1, and this is 2.15.0"),
        ("2.11.0", "do not load with torch 2.11.0"),
    ],
)
def test_a_wheel_has_nodes_for_several_versions_of_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: str, reason: str
) -> None:
    suffix = _extension.importlib.machinery.EXTENSION_SUFFIXES[0]
    for name in ("2.11.0/_nodes" + suffix, "2.14.1/_nodes" + suffix, "2.12.0/_nodes.cpython-399-another.so"):
        library = tmp_path / "nodes_for" / name
        library.parent.mkdir(parents=True)
        library.touch()  # an empty file, which does not load
    found = SimpleNamespace(build_info=lambda: {"autograd_nodes": "2.13.0+cpu"})
    monkeypatch.setattr(_extension, "extension", _extension.Extension(found, ""))
    monkeypatch.setattr(_extension, "__file__", str(tmp_path / "_extension.py"))
    monkeypatch.setattr(_extension.torch, "__version__", running)
    if running.startswith("2.14"):
        monkeypatch.setattr(_extension, "_import_from", lambda path: SimpleNamespace(path=path))
    state = _extension._load_nodes()
    assert reason in state.reason
    if running.startswith("2.14"):
        assert state.module is not None
        assert state.module.path == tmp_path / "nodes_for" / "2.14.1" / f"_nodes{suffix}"
    else:
        assert state.module is None


BUILT = "sm_80,sm_90,sm_100,compute_80"


@pytest.mark.parametrize(
    ("toolkit", "driver", "capability", "said"),
    [
        ("13.0", 13000, (9, 0), None),
        ("13.0", 13010, (8, 6), None),  # code for sm_80 runs on every 8.x
        ("13.1", 13000, (9, 0), None),  # any driver of the same major version runs compiled code
        ("13.0", 13000, (12, 0), None),  # by way of PTX
        ("none", 12080, (9, 0), None),
        ("13.0", 12080, (9, 0), "built with CUDA 13.0, and the driver runs CUDA 12.8 at most: update the driver"),
        ("13.1", 13000, (12, 0), "no code for a GPU .sm_120., and the driver, of CUDA 13.0, does not translate"),
        ("13.0", 13000, (7, 5), "built for sm_80,sm_90,sm_100,compute_80, and a GPU is sm_75"),
    ],
)
def test_a_library_that_cannot_run_here_says_why(
    toolkit: str, driver: int, capability: tuple[int, int], said: str | None
) -> None:
    """At its first launch it would fail with an error that names none of this."""
    why = _extension.cuda_obstacle(BUILT, toolkit, driver, [("another", (9, 0)), ("a GPU", capability)])
    assert why is None if said is None else re.search(said, why or ""), why


def test_such_a_library_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension._env, "NO_EXTENSION", False)
    monkeypatch.setattr(_extension, "cuda_library_path", lambda: Path("library.so"))
    monkeypatch.setattr(_extension, "cuda_architectures", lambda: BUILT)
    monkeypatch.setattr(_extension, "machine", lambda: Machine(13000, [(9, 0), (7, 0)]))
    monkeypatch.setattr(_extension.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(_extension.torch.cuda, "get_device_name", lambda i: "an old GPU")
    monkeypatch.setattr(_extension.torch.cuda, "get_device_capability", lambda i: (7, 0))
    monkeypatch.setattr(_extension.torch._C, "_cuda_getDriverVersion", lambda: 13000, raising=False)
    monkeypatch.setattr(_extension.torch.ops, "load_library", lambda path: pytest.fail("it was loaded"))
    state = _extension._load_cuda()
    assert not state.loaded and "an old GPU is sm_70" in state.reason


def test_the_library_is_loaded_without_starting_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that has only imported hybridkern: one that is forked from it could not use CUDA any more."""
    monkeypatch.setattr(_extension._env, "NO_EXTENSION", False)
    monkeypatch.setattr(_extension, "cuda_library_path", lambda: Path("library.so"))
    monkeypatch.setattr(_extension, "cuda_architectures", lambda: BUILT)
    monkeypatch.setattr(_extension, "cuda_toolkit", lambda: "13.0")
    monkeypatch.setattr(_extension, "machine", lambda: Machine(13000, [(9, 0)]), raising=False)
    monkeypatch.setattr(_extension.torch.cuda, "device_count", lambda: 1)  # by the same library
    for name in ("is_available", "get_device_name", "get_device_capability"):
        monkeypatch.setattr(_extension.torch.cuda, name, lambda *_, name=name: pytest.fail(f"{name} starts CUDA"))
    loaded: list[str] = []
    monkeypatch.setattr(_extension.torch.ops, "load_library", loaded.append)
    assert _extension._load_cuda().loaded and loaded == ["library.so"]


class _Nvml:
    """NVIDIA's management library on a machine with these GPUs."""

    def __init__(self, *capabilities: tuple[int, int]) -> None:
        self._capabilities = capabilities

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, version: Any) -> int:
        version._obj.value = 13000
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self._capabilities)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:
        device._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = self._capabilities[device.value - 1]
        return 0


def test_the_management_library_names_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nvml, "CDLL", lambda name: _Nvml((9, 0), (7, 5)))
    assert _nvml.machine() == Machine(13000, [(9, 0), (7, 5)])


def test_a_management_library_that_fails_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Nvml((9, 0))
    monkeypatch.setattr(library, "nvmlInit_v2", lambda: 9)
    monkeypatch.setattr(_nvml, "CDLL", lambda name: library)
    assert _nvml.machine() is None
    monkeypatch.setattr(_nvml, "CDLL", lambda name: object())
    assert _nvml.machine() is None


def test_too_old_a_torch_for_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    def unloadable(name: str) -> None:
        raise ImportError("undefined symbol")

    monkeypatch.setattr(_extension._env, "NO_EXTENSION", False)
    monkeypatch.setattr(_extension.importlib, "import_module", unloadable)
    for version, said in (("2.9.1+cu128", "needs torch 2.10 or newer, and this is 2.9.1"), ("2.12.0", "undefined sym")):
        monkeypatch.setattr(_extension.torch, "__version__", version)
        assert said in _extension._load().reason


WITHOUT_NODES = """
import warnings, torch
torch.__version__ = "2.99.0"
import hybridkern
x = torch.zeros(2, 3, requires_grad=True)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        hybridkern.ops.gaussian_log_prob(x).sum().backward()
print(len(seen), *(w.message for w in seen), "|", hybridkern.backends()["cpp"].reason)
"""


@pytest.mark.skipif(_extension.nodes.module is None, reason="the C++ autograd nodes are off here anyway")
def test_without_nodes_says_so_once() -> None:
    done = run_python("-c", WITHOUT_NODES)
    assert done.returncode == 0, done.stderr
    warning, _, reason = done.stdout.partition("|")
    assert warning.startswith("1 hybridkern runs without its C++ autograd nodes")
    assert all("this is 2.99.0" in text for text in (warning, reason))
