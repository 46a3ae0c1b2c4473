"""The exceptions whose messages are meant for the user as they stand."""

from __future__ import annotations


class RecipeError(Exception):
    """Something the user can put right; the message is one line naming what was wrong and what was expected."""


class DamagedFileError(RecipeError):
    """A file that is not what was written: truncated, changed or unreadable. Names the file and its fault."""


class UnsealedFileError(RecipeError):
    """A whole file without the checksum that it should hold: another program wrote it."""


def diverged(epoch: int, what: str) -> RecipeError:
    """The error for a model that training has ruined; ``epoch`` counts from 0."""
    return RecipeError(f"training broke down in epoch {epoch + 1}: {what}; another --lam or --batch-size may help")
