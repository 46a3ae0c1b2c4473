"""The script of ``make readme-test`` runs the README's own lines, in order, and stops where one fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from buildtools.environments import ROOT
from tests.packaging import readme_path

README = """\
```
pip install '.[train]'
```
`pip install .` leaves out what training needs.
```python
print(1)
```
```
make demo                # the build
hybridkern recipes       # all of them
hybridkern train moons --out runs/moons
```
"""


def test_the_steps() -> None:
    clone, alone, empty = Path("/clone"), Path("/alone"), Path("/empty")
    steps = readme_path.steps_of(README, clone, alone, empty, None)
    assert steps[:-1] == [
        ("pip install '.[train]'", clone),
        ("python -c 'print(1)\n'", empty),
        ("hybridkern recipes", empty),
        ("hybridkern train moons --out runs/moons", empty),
    ]
    assert steps[-1][1] == alone
    with_wheel = readme_path.steps_of(README, clone, alone, empty, Path("/dist/a.whl"))
    assert with_wheel[0] == ("pip install '/dist/a.whl[train]'", clone) and with_wheel[1:] == steps[1:]


def test_the_readme_has_such_lines() -> None:
    lines = readme_path.lines_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert lines[0] == "pip install '.[train]'" and len(lines) >= 4
    assert all(line.startswith("hybridkern ") for line in lines[1:])


def test_a_step_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [("echo one >> ran", tmp_path), ("exit 3", tmp_path), ("echo two >> ran", tmp_path)]
    monkeypatch.setattr(readme_path, "steps_of", lambda *_: steps)
    monkeypatch.setattr(readme_path, "copy_tracked", lambda folder, without=(): folder)
    monkeypatch.setattr(sys, "executable", "true")  # makes no environment
    assert readme_path.main(["--folder", str(tmp_path / "folder")]) == 1
    assert "failed: exit 3 ended with 3" in capsys.readouterr().out
    assert (tmp_path / "ran").read_text() == "one\n"
    assert readme_path.main(["--folder", str(tmp_path / "folder")]) == 1  # what is there is emptied
    steps.pop(1)
    assert readme_path.main(["--folder", str(tmp_path / "folder")]) == 0
    assert "holds: the README's path" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"--wheel: got none\.whl, expected a file"):
        readme_path.main(["--wheel", "none.whl"])
