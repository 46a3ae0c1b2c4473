"""The layers of DESIGN.md, read off the sources: imports point downward only, and an operator has one name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hybridkern"

# Bottom to top. A name covers the module and everything below it; modules of one layer may import each other.
# The laboratory is cut once more: its parts are `lab.<part>`.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_arguments", "_autocast", "_calls", "_env", "_extension", "_finite", "_values", "_C", "_nodes"),
    ("_precision", "_tensors"),
    ("reference",),
    ("triton",),
    ("ops",),
    ("transforms", "distributions", "nets", "optim", "_optim_state"),
    ("flows",),
    ("hybrid",),
    ("integrations",),
    ("",),  # hybridkern/__init__.py: gathers the public names of the layers above this line
    ("report",),
    ("lab",),  # hybridkern/lab/__init__.py, which says what the laboratory is
    ("lab.data", "lab.recipes", "lab.plots"),
    ("lab.reproduce",),
    ("lab.cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# What a layer may import beside the standard library, torch and numpy.
TRAINING = {"lightning", "matplotlib", "pooch", "rich", "safetensors", "scipy", "sklearn", "typer"}
FOREIGN = {
    "triton": {"triton"},
    "integrations": {"FrEIA", "nflows", "normflows", "pytest"},
    **dict.fromkeys((name for name in RANK if name.startswith("lab.")), TRAINING),
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
        elif parts[0] not in sys.stdlib_module_names | {"torch", "numpy"} | FOREIGN.get(own, set()):
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}, which this layer must do without")
    assert not wrong, "\n".join(wrong)


def test_import_is_light() -> None:
    """``import hybridkern`` loads torch and numpy, and nothing that an extra brings."""
    heavy = sorted(TRAINING | {"triton", "FrEIA", "nflows", "normflows", "pytest"})
    code = (
        "import sys, torch; before = set(sys.modules); import hybridkern; "
        f"print([name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def operators(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in folder.glob(f"*{suffix}") if not path.name.startswith("_")}


def test_one_operator_is_one_name() -> None:
    """Every operator has its file in each folder and its name in the tests; GPU files name operators only."""
    names = operators(PACKAGE / "reference", ".py")
    assert names, "no operator found"
    assert operators(PACKAGE / "ops", ".py") == names
    for folder, suffix in ((ROOT / "csrc/cuda", ".cu"), (PACKAGE / "triton", ".py")):
        assert operators(folder, suffix) <= names, folder
    assert names <= operators(ROOT / "csrc/cpu", ".cpp")  # beside them lie the files that they share
    tests = "".join(path.read_text() for path in (ROOT / "tests/ops").glob("*.py"))
    assert [name for name in names if name not in tests] == []


def test_extension_uses_the_stable_interface_only() -> None:
    """No ATen or c10 header: the binary must load in later versions of torch. The autograd nodes are another binary."""
    wrong = []
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.suffix not in {".cpp", ".h", ".cu", ".cuh"}:
            continue
        if path.parent.name == "autograd":
            continue
        for name in re.findall(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", path.read_text(), flags=re.MULTILINE):
            if name.startswith(("ATen", "c10", "torch/")) and not name.startswith(ALLOWED_INCLUDES):
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong, "\n".join(wrong)
