"""Commands that workflows, scripts and pages name exist: targets and variables of the Makefile, scripts, modules."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, flags=re.MULTILINE)) | {"CXX"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = [path for path in (*WORKFLOWS, ROOT / ".ci" / "run") if path.exists()]  # an sdist has none of them
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def wrong(command: str) -> list[str]:
    """What of ``make WORDS...`` does not exist."""
    words = re.sub(r"=(\"[^\"]*\"|'[^']*'|\S*)", "=", command).split()
    variables = {word.removesuffix("=") for word in words if word.endswith("=")}
    targets = {word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}
    return sorted(targets - TARGETS) + sorted(
        name for name in variables - VARIABLES if not name.startswith(("HYBRIDKERN_", "MAX_JOBS"))
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_of_a_script(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"^\s*(?:- run: |step )(.+)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        program, _, rest = command.partition(" ")
        if program == "make":
            assert not wrong(rest.split(" #")[0]), command
        elif program.startswith("."):
            assert os.access(ROOT / program, os.X_OK), command
    for module in re.findall(r"-m ((?:tests|benchmarks|hybridkern|buildtools)[\w.]*)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_of_a_page(path: Path) -> None:
    for command in re.findall(r"(?:^|`)make ([^`\n]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert not wrong(command.split(" #")[0].split("  ")[0]), command


def test_what_does_not_exist_is_found() -> None:
    assert wrong('wheel PYTHON=python3.12 WHEEL_TORCH="a b"') == []
    assert wrong("wheels WHEEL_TORCHES='a b' docs HYBRIDKERN_CUDA=0") == ["wheels", "WHEEL_TORCHES"]
