"""The documentation's examples run, page by page; what it names exists; every page stands in the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python" in path.read_text(encoding="utf-8"))
TEXT = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
NAVIGATION = set(
    re.findall(r"(?:- |: )([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", PAGES, ids=[path.stem for path in PAGES])
def test_examples_run_from_top_to_bottom(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", source, flags=re.MULTILINE | re.DOTALL)
    with torch.random.fork_rng(devices=[]):
        exec(compile("\n".join(blocks), page.name, "exec"), {"__name__": page.stem})


def test_every_concept_has_a_page_with_an_example() -> None:
    assert {page.stem for page in PAGES} >= {
        "index", "hybrid-models", "couplings", "integer-flows", "glow", "heads", "objectives", "selective", "backends",
        "reproduce",
    }  # fmt: skip


def test_the_navigation_names_the_pages() -> None:
    notebooks = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.glob("gallery/*.py")}
    assert NAVIGATION and all((DOCS / page).exists() or page in notebooks for page in NAVIGATION)
    assert len(notebooks) >= 6 and notebooks <= NAVIGATION
    assert {f"{page.stem}.md" for page in PAGES} <= NAVIGATION


@pytest.mark.parametrize("notebook", sorted(DOCS.glob("gallery/*.py")), ids=lambda path: path.stem)
def test_the_overview_shows_every_notebook(notebook: Path) -> None:
    """``make docs`` executes them; a card without its picture would stop it only after that."""
    source = notebook.read_text(encoding="utf-8")
    assert source.startswith("# %% [markdown]\n# # ") and source.count('# %% tags=["thumbnail"]\n') == 1
    overview = TEXT["gallery/index.md"]
    assert f"]({notebook.stem}.png)]({notebook.stem}.md)" in overview


@pytest.mark.parametrize("page", TEXT)
def test_sources_that_a_page_names_exist(page: str) -> None:
    for path in re.findall(r"`(hybridkern/[\w/]+\.py)`", TEXT[page]):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", sorted(page for page in TEXT if page.startswith("api/")))
def test_api_pages_name_functions_and_not_the_modules_that_hold_them(page: str) -> None:
    """Where a module has the name of what it holds, the generator takes the module and leaves the function out."""
    found = re.findall(r"^::: ([\w.]+)\n(?:    .*\n)*?      members: \[([^]]*)\]", TEXT[page], re.MULTILINE)
    assert len(found) == TEXT[page].count("members: [")
    for module, members in found:
        for name in re.split(r"[,\s]+", members.strip()):
            assert not (ROOT / module.replace(".", "/") / f"{name}.py").exists(), f"{module}.{name}.{name}"
