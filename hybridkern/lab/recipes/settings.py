"""What the settings of a recipe mean: read from the docstrings of its configuration."""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple, get_args, get_type_hints

from hybridkern.lab.recipes.recipe import Recipe

_NAMES = r"((?:\w+, )*\w+): "
_ROLE = re.compile(r":\w+:`~?([\w.]+)`")


class Setting(NamedTuple):
    """A setting of a recipe: its name, kind (``"int"``), first value and meaning, all as text."""

    name: str
    kind: str
    default: str
    meaning: str


def settings_of(recipe: Recipe) -> list[Setting]:
    """Those of a recipe, in the order of ``config.json``; a meaning is empty where no docstring tells it."""
    config = recipe.config
    names = config.names()
    meanings: dict[str, str] = {}
    for kind in reversed(type(config).__mro__):
        meanings |= _meanings(kind, set(names))
    types = get_type_hints(type(config))
    return [Setting(n, _kind(types[n]), _text(getattr(config, n)), meanings.get(n, "")) for n in names]


def _kind(annotation: Any) -> str:
    kinds = [kind.__name__ for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    return " or ".join(kinds)


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _meanings(kind: type, names: set[str]) -> dict[str, str]:
    """From the section ``Attributes`` of a docstring: ``a, b: text``, of which one line may hold several."""
    _, found, section = (kind.__dict__.get("__doc__") or "").partition("Attributes:\n")
    if not found:
        return {}
    section = re.split(r"\n\s*\n", section)[0]
    text = " ".join(inspect.cleandoc(section).split())
    text = _ROLE.sub(lambda m: m[1].removeprefix("hybridkern."), text).replace("``", "")
    starts = [m for m in re.finditer(rf"(?:^|(?<=[.;)] )){_NAMES}", text) if set(m[1].split(", ")) <= names]
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {
        name: text[match.end() : end].strip(" .;")
        for match, end in zip(starts, ends, strict=True)
        for name in match[1].split(", ")
    }
