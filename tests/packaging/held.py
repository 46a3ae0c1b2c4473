"""Which cases of ``make wheel-test`` held before, with the same package and the same tests: they are not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def key_of(package: Path, tests: Path, others: Iterable[str]) -> str:
    """Of what decides whether a case holds: the package, the files of the tests, and other facts by name."""
    found = hashlib.sha256(repr(list(others)).encode())
    for path in [package, *sorted(path for path in tests.rglob("*.py") if path.is_file())]:
        found.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


class Held:
    """Cases and their keys, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}

    def __call__(self, case: str, key: str) -> bool:
        """Whether the case held with this key."""
        return self._keys.get(case) == key

    def note(self, case: str, key: str | None) -> None:
        """The case held with this key; ``None``: it did not."""
        self._keys.pop(case, None)
        if key is not None:
            self._keys[case] = key
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._keys, indent=1))
        part.replace(self._file)
