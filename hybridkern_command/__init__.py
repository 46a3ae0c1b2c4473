"""The ``hybridkern`` command, started without the package, which imports torch: ``--help`` need not wait for that."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Entry point: runs ``hybridkern/lab/cli.py``, whose commands import what they need."""
    package = importlib.util.find_spec("hybridkern")  # finds it, and does not import it
    if package is None or package.origin is None:
        sys.exit("hybridkern: the package was not found; install it again")
    file = Path(package.origin).parent / "lab" / "cli.py"
    spec = importlib.util.spec_from_file_location("hybridkern_command.cli", file)
    assert spec is not None and spec.loader is not None
    cli = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = cli
    spec.loader.exec_module(cli)
    cli.main()
