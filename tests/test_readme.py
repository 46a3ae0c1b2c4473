"""The README's example runs as printed, and what the README points to exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
LINKS = [link for link in re.findall(r"\]\(([^)#\s]+)", README) if "://" not in link]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs_as_printed(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # one thread: idle ones spin, and starve whatever else the machine runs
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the example prints what it found"


def test_it_is_short() -> None:
    assert EXAMPLES, "the README has an example"
    assert len(list(filter(None, EXAMPLES[0].splitlines()))) <= 12
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 900


def test_the_example_needs_what_the_install_line_installs() -> None:
    """Its imports are the package, what it depends on, and the extra that the line before it names."""
    (extra,) = re.findall(r"^pip install '\.\[(\w+)\]'$", README, flags=re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(rf"^{extra} = \[(.*?)^\]", project, flags=re.MULTILINE | re.DOTALL)
    assert listed
    names = {"scikit-learn": "sklearn"}
    installed = {names.get(name, name) for name in re.findall(r'"([\w-]+)>=', listed[1])} | {
        "torch",
        "numpy",
        "hybridkern",
    }
    assert set(re.findall(r"^(?:from|import) (\w+)", EXAMPLES[0], flags=re.MULTILINE)) <= installed
    assert README.index("pip install '.[") < README.index("```python")


@pytest.mark.parametrize("link", LINKS)
def test_links_inside_the_repository(link: str) -> None:
    assert (ROOT / link).exists(), link


def test_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
