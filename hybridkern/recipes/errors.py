"""The one exception whose message is meant for the user as it stands."""

from __future__ import annotations


class RecipeError(Exception):
    """Something the user can put right; the message is one line naming what was wrong and what was expected."""
