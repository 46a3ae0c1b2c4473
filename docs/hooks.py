"""What is made when the pages are built: the gallery from its notebooks, and MathML from formulas.

So pages need neither scripts nor a network.
"""

from __future__ import annotations

import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
_FUNCTION = re.compile(r"(\\(?:log|exp|det|ln|max|min)\b)\s*(?=[A-Za-z\\])")
_FETCHED = re.compile(r"<script[^>]*\bsrc=.?https?://[^>]*></script>")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and pictures of the notebooks, which are executed where that is due."""
    sys.path.insert(0, str(Path(__file__).parent))
    from notebooks import pages

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Converts the formulas of a page."""
    html = _INLINE.sub(lambda found: convert(_latex(found[1])), html)
    return _DISPLAY.sub(lambda found: f'<div class="formula">{convert(_latex(found[1]), display="block")}</div>', html)


def on_post_page(output: str, **_: Any) -> str:
    """Leaves out the script that the theme fetches for the search; ``javascripts/`` has one in its place."""
    return _FETCHED.sub("", output)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page of pages that are not found."""
    return _FETCHED.sub("", output_content)


def _latex(text: str) -> str:
    """The formula, with the space that LaTeX leaves after the name of a function and MathML does not."""
    return _FUNCTION.sub(r"\1\,", unescape(text))
