"""Names for files that are written beside their place and moved there whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LONGEST = 255  # bytes of a name, on all common file systems
_NAME = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")


def beside(path: Path, ending: str | None = None) -> Path:
    """A name that no other writer has, thread or process, on this machine or another.

    Args:
        path: of the file to be.
        ending: of the name; ``None``: that of ``path``.
    """
    own = int.from_bytes(os.urandom(6), "little")
    tail = f".{os.getpid()}.{own}.tmp{path.suffix if ending is None else ending}"
    stem = os.fsencode(path.stem)[: max(1, _LONGEST - 1 - len(os.fsencode(tail)))]  # a long name leaves too little room
    return path.with_name(f".{os.fsdecode(stem)}{tail}")


def is_temporary(path: Path) -> bool:
    """Whether :func:`beside` gave that name: a file that is being written, or whose writer was killed."""
    return _NAME.fullmatch(path.name) is not None
