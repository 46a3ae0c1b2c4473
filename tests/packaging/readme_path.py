"""The README from its first line, in an environment that is new: ``make readme-test`` runs it.

A virtual environment and a copy of what git tracks. There the README's ``pip install`` line as it stands; in an empty
folder its example and its ``hybridkern`` lines; then one's own table, ``tests/test_newcomer.py``, on what was
installed. Prints what each step took.

Not part of the test suite: pip fetches torch and compiles for minutes. ``--wheel`` installs a wheel in place of the
clone. Where torch comes from, pip's own configuration says (such as ``PIP_EXTRA_INDEX_URL``).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from buildtools.environments import ROOT, CommandError

PACKAGES = ("hybridkern", "hybridkern_command")
Step = tuple[str, Path]  # a command of the shell, and where


def blocks_of(readme: str, language: str) -> list[str]:
    """The README's code of a language; that of none is the shell's."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def lines_of(readme: str) -> list[str]:
    """Commands of the README that need no make: its install line, and those of the package."""
    lines = [line.split(" #")[0].strip() for block in blocks_of(readme, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith(("pip install", "hybridkern "))]


def steps_of(readme: str, clone: Path, alone: Path, empty: Path, wheel: Path | None) -> list[Step]:
    """What to run, in order.

    Args:
        readme: its text.
        clone: what is installed from.
        alone: the same without the package, so that its tests see what was installed.
        empty: where a newcomer works.
        wheel: what is installed in place of the clone.
    """
    (example,) = blocks_of(readme, "python")
    install, *commands = lines_of(readme)
    if wheel is not None:
        install = install.replace(".[", f"{wheel}[")
    return [
        (install, clone),
        (f"python -c {shlex.quote(example)}", empty),
        *((command, empty) for command in commands),
        ("pip install 'pytest>=8.3' && python -m pytest -q tests/test_newcomer.py", alone),
    ]


def copy_tracked(folder: Path, without: Sequence[str] = ()) -> Path:
    """A copy of what git tracks, as it lies in the working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and Path(name).parts[0] not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run(step: Step, environment: Path) -> None:
    """Runs a command in the environment; raises CommandError where it fails."""
    command, where = step
    title, began = command.splitlines()[0], time.monotonic()
    print(f"\n== {title}", flush=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYBRIDKERN_", "PYTHONPATH"))}
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-ec", command], cwd=where, env=kept | {"PATH": path}, check=False)
    print(f"== {title}: {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode != 0:
        raise CommandError(f"{title} ended with {done.returncode}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="installed in place of the clone; compiles nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "readme-test", help="emptied first")
    options = parser.parse_args(arguments)
    if options.wheel is not None and not options.wheel.is_file():
        raise SystemExit(f"--wheel: got {options.wheel}, expected a file; `make wheel` makes one")
    folder, began = options.folder.resolve(), time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "empty").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
    clone, alone = copy_tracked(folder / "clone"), copy_tracked(folder / "alone", PACKAGES)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    try:
        for step in steps_of(readme, clone, alone, folder / "empty", options.wheel and options.wheel.resolve()):
            run(step, folder / "environment")
    except CommandError as error:
        print(f"\nfailed: {error}")
        return 1
    print(f"\nholds: the README's path, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
