"""Formulas become MathML when the pages are built, so that they need neither scripts nor a network."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Converts the formulas of a page."""
    html = _INLINE.sub(lambda found: convert(unescape(found[1])), html)
    return _DISPLAY.sub(
        lambda found: f'<div class="formula">{convert(unescape(found[1]), display="block")}</div>', html
    )
