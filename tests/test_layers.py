"""The layers of DESIGN.md, read off the sources: imports point downward only, and an operator has one name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybridkern.ops._operator import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hybridkern"

# Bottom to top. A name covers the module and everything below it; modules of one layer may import each other.
# The laboratory is cut once more: its parts are `lab.<part>`.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "_arguments",
        "_autocast",
        "_calls",
        "_described",
        "_env",
        "_extension",
        "_finite",
        "_modes",
        "_nvml",
        "_temporary",
        "_values",
        "_C",
        "_nodes",
    ),
    ("_precision", "_ranks", "_tensors", "_saved"),
    ("ops",),
    ("lipschitz", "transforms", "distributions", "nets", "optim", "_optim_state"),
    ("flows",),
    ("hybrid",),
    ("graphs", "integrations", "codec"),
    ("",),  # hybridkern/__init__.py: gathers the public names of the layers above this line
    ("report",),
    ("lab",),  # hybridkern/lab/__init__.py, which says what the laboratory is
    ("lab.archive", "lab.data", "lab.recipes", "lab.plots", "lab.fitting"),
    ("lab.reproduce", "lab.compress"),
    ("lab.cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# What a layer may import beside the standard library, torch and numpy.
TRAINING = {"lightning", "matplotlib", "PIL", "pooch", "rich", "safetensors", "scipy", "sklearn", "typer"}
FOREIGN = {
    "_saved": {"safetensors"},
    "integrations": {"FrEIA", "nflows", "normflows", "pytest", "zuko"},
    **dict.fromkeys((name for name in RANK if name.startswith("lab.")), TRAINING),
    "lab.cli": TRAINING | {"hybridkern_command"},  # what needs no package, so that --help need not wait for it
}
ALLOWED_INCLUDES = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/", "pybind11/")


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return layer(path.relative_to(PACKAGE).with_suffix("").parts)


def layer(parts: tuple[str, ...]) -> str:
    """The layer of a module, by its path in the package."""
    top = parts[0] if parts and parts[0] != "__init__" else ""
    return f"lab.{parts[1]}" if top == "lab" and parts[1:] not in ((), ("__init__",)) else top


def is_module(dotted: str) -> bool:
    path = ROOT / dotted.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, at any depth, as ``(line, dotted name)``."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((node.lineno, inner if is_module(inner) else base))
    return found


def foreign(path: Path, layer: str) -> set[str]:
    """What else a file may import; triton is for the kernels that are written in it."""
    is_triton = layer in ("ops", "codec") and (path.name.startswith("triton") or path.parent.name == "_triton")
    return {"triton"} if is_triton else FOREIGN.get(layer, set())


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = layer_of(path)
    assert own in RANK, f"{path.relative_to(ROOT)}: no layer of LAYERS holds it"
    wrong = []
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] == "hybridkern":
            target = layer(tuple(parts[1:]))
            if target not in RANK or RANK[target] > RANK[own]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}, which lies above it")
        elif parts[0] not in sys.stdlib_module_names | {"torch", "numpy"} | foreign(path, own):
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}, which this layer must do without")
    assert not wrong, "\n".join(wrong)


def test_import_is_light() -> None:
    """``import hybridkern`` loads torch and numpy, and nothing that an extra brings."""
    heavy = sorted(TRAINING | {"triton", "FrEIA", "nflows", "normflows", "pytest", "zuko"})
    code = (
        "import sys, torch; before = set(sys.modules); import hybridkern; "
        f"print([name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_parts_that_few_programs_use_are_imported_when_they_are_named() -> None:
    """And what only they import; without an import of their own they are there all the same."""
    later = ["hybridkern.codec", "hybridkern.graphs", "hybridkern.integrations", "hybridkern.lab", "decimal"]
    code = (
        "import sys, torch; before = set(sys.modules); import hybridkern; "
        f"print([name for name in {later!r} if name in set(sys.modules) - before]); "
        "print(hybridkern.codec.Codec.__name__, hybridkern.graphs.GraphedStep.__name__, "
        "hybridkern.integrations.accelerate.__name__, {'codec', 'flows', 'load'} <= set(dir(hybridkern))); "
        "print(hasattr(hybridkern, 'lab_book'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["[]", "Codec GraphedStep accelerate True", "False"]


def rooms() -> list[str]:
    """Folders of operators; what they share has a name that begins with an underscore."""
    return sorted(path.name for path in (PACKAGE / "ops").iterdir() if path.is_dir() and not path.name.startswith("_"))


def test_every_room_is_an_operator() -> None:
    """One operator, one folder, one object in the registry."""
    assert rooms() == sorted(OPERATORS) != []


@pytest.mark.parametrize("name", rooms())
def test_one_operator_one_room(name: str) -> None:
    """Its folder holds the operator, its formula and typical calls; Triton kernels where the operator names them."""
    held = {path.name for path in (PACKAGE / "ops" / name).glob("*.py")}
    assert {"operator.py", "reference.py"} <= held
    assert ("triton.py" in held) == OPERATORS[name].triton
    assert (ROOT / "csrc" / name / "cpu.cpp").exists() == bool(OPERATORS[name].dtypes)


def test_every_folder_of_kernels_is_an_operator() -> None:
    """Beside them stand those of what all operators share."""
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert folders - {"autograd", "codec", "cpu", "cuda", "math"} <= set(OPERATORS)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_has_samples(name: str) -> None:
    """The suites of tests/ops run over these: an operator without them would pass untested."""
    samples = OPERATORS[name].samples
    assert samples, f"hybridkern/ops/{name}/sample.py: got no samples, expected SAMPLES with one at least"
    assert all(len(sample.arguments((2, 3, 4, 4)[: sample.shapes[-1]], torch.float32)) for sample in samples.values())


def test_extension_uses_the_stable_interface_only() -> None:
    """No ATen or c10 header: the binary must load in later versions of torch. The autograd nodes are another binary."""
    wrong = []
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.suffix not in {".cpp", ".h", ".cu", ".cuh"}:
            continue
        if path.parent.name == "autograd" or path.name == "node.cpp":
            continue
        for name in re.findall(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", path.read_text(), flags=re.MULTILINE):
            if name.startswith(("ATen", "c10", "torch/")) and not name.startswith(ALLOWED_INCLUDES):
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong, "\n".join(wrong)
