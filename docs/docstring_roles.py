"""Shows the cross-references of docstrings, ``:class:`~package.Name```, and their examples as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?([^`]+)`")
_EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Roles(griffe.Extension):
    """Rewrites each docstring once, when it has been read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """``text`` with code in place of roles, single backticks for double ones, and fences around examples."""
    text = _ROLE.sub(r"`\1`", text).replace("``", "`")
    return _EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)
