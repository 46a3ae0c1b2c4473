"""The one exception whose message is meant for the user as it stands."""

from __future__ import annotations


class RecipeError(Exception):
    """Something the user can put right; the message is one line naming what was wrong and what was expected."""


def diverged(epoch: int, what: str) -> RecipeError:
    """The error for a model that training has ruined; ``epoch`` counts from 0."""
    return RecipeError(f"training broke down in epoch {epoch + 1}: {what}; another --lam or --batch-size may help")
