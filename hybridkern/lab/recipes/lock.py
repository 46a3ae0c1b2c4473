"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridkern.lab.recipes.errors import RecipeError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder against other processes for the block.

    The lock is the kernel's, on the folder itself: it ends with the process, however that ends, and leaves no file.
    File systems without such locks go without.

    Raises:
        RecipeError: another process holds it.
        OSError: it is no folder, or cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(f"{folder}: another process is at work in this folder") from error
        except OSError:
            pass  # network file systems may refuse to lock a folder
        yield
    finally:
        os.close(descriptor)
