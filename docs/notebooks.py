"""Executes the notebooks of ``docs/gallery`` and makes pages of them; the site's build does so.

They are Python files in which ``# %%`` begins a cell. What they gave is kept under ``build/gallery`` until they or the
package change. The cell with the tag ``thumbnail`` draws the picture of the overview.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

_DOCS = Path(__file__).resolve().parent
_ROOT = _DOCS.parent
_KEPT = _ROOT / "build/gallery"
_SECONDS = 300  # for a cell, on a machine that does other things, too
_AT_ONCE = 2


def pages() -> dict[str, str | bytes]:
    """The content of the files of all notebooks, by their path in the site: page, pictures, thumbnail, notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: no cell of a notebook draws a thumbnail.
    """
    files: dict[str, str | bytes] = {}
    for name, notebook in _executed(sorted((_DOCS / "gallery").glob("*.py"))).items():
        body, resources = MarkdownExporter().from_notebook_node(
            notebook, resources={"unique_key": "picture", "output_files_dir": f"{name}_files"}
        )
        title, rest = body.lstrip().split("\n", 1)
        files[f"gallery/{name}.md"] = f"{title}\n\n[Download this notebook]({name}.ipynb){{ download }}\n{rest}"
        files |= {f"gallery/{path}": content for path, content in resources["outputs"].items()}
        files[f"gallery/{name}.png"] = _thumbnail(name, notebook)
        files[f"gallery/{name}.ipynb"] = nbformat.writes(notebook)
    return files


def _executed(sources: list[Path]) -> dict[str, NotebookNode]:
    """The notebooks by name: those that were kept, and the others, which are executed now."""
    code = b"".join(path.read_bytes() for path in sorted((_ROOT / "hybridkern").rglob("*.py")))
    kept = {
        path.stem: _KEPT / f"{path.stem}-{hashlib.sha256(code + path.read_bytes()).hexdigest()[:16]}.ipynb"
        for path in sources
    }
    asyncio.run(_execute([(path, kept[path.stem]) for path in sources if not kept[path.stem].exists()]))
    return {name: nbformat.read(path, as_version=4) for name, path in kept.items()}


async def _execute(pairs: list[tuple[Path, Path]]) -> None:
    free = asyncio.Semaphore(_AT_ONCE)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}

    async def execute(source: Path, target: Path, sockets: str) -> None:
        notebook = jupytext.read(source)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        async with free:
            began = time.monotonic()
            client = NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", record_timing=False)
            manager = client.create_kernel_manager()
            manager.transport = "ipc"  # by files, not by the network
            manager.ip = f"{sockets}/{source.stem}"  # of its own: by default two kernels would share them
            await client.async_execute(env=environment)
            print(f"docs/gallery/{source.name}: executed in {time.monotonic() - began:.0f} s", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(f"{source.stem}-{'?' * 16}.ipynb"):
            old.unlink()
        nbformat.write(notebook, target.with_suffix(".part"))
        target.with_suffix(".part").rename(target)

    with tempfile.TemporaryDirectory() as sockets:
        await asyncio.gather(*(execute(*pair, sockets) for pair in pairs))


def _thumbnail(name: str, notebook: NotebookNode) -> bytes:
    for cell in notebook.cells:
        if "thumbnail" in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    raise ValueError(f"docs/gallery/{name}.py: no cell with the tag 'thumbnail' draws a picture")


if __name__ == "__main__":
    pages()
