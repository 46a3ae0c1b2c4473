"""``hybridkern compress``, ``decompress`` and ``inspect``: their arguments; the package is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hybridkern_command.console import plain, print_lines


def compress(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with an integer flow on images.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help=".png, .webp, .npz files, or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.hk", help="The archive.")],
    float64: Annotated[
        bool,
        typer.Option("--float64", help="Networks in float64: works for any network, but decodes on this machine only."),
    ] = False,
    compare: Annotated[
        bool, typer.Option(help="Also show the bytes of PNG and lossless WebP for these pixels.")
    ] = True,
) -> None:
    """Compress images without loss, with a trained integer flow."""
    from hybridkern.lab.compress import workflow

    sizes = workflow.compress(run, paths, out, integers=not float64, compare=compare, say=_say)
    table = Table(title=plain(f"{out}: bytes", "table.title"))
    for column in ("file", "as it was", "PNG", "lossless WebP", "archive", "bits per value"):
        table.add_column(column, justify="left" if column == "file" else "right")
    shown = sizes if len(sizes) <= 20 else []
    for one in [*shown, *workflow.summed(sizes, out)]:
        if not one.pixels:
            table.add_row(plain(one.name), "", "", "", str(one.archive), "")
            continue
        webp = "too long for it" if one.webp is None else str(one.webp)
        others = (str(one.png), webp) if compare else ("", "")
        table.add_row(plain(one.name), str(one.file), *others, str(one.archive), f"{8 * one.archive / one.pixels:.3f}")
    Console().print(table)


def decompress(
    archive: Annotated[Path, typer.Argument(metavar="OUT.hk", help="An archive.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write into.")],
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run folder, if it has moved.", show_default="as recorded")
    ] = None,
) -> None:
    """Restore the images of an archive, with exactly the same pixels."""
    from hybridkern.lab.compress import workflow

    workflow.decompress(archive, out, run=run, say=_say)


def inspect(archive: Annotated[Path, typer.Argument(metavar="OUT.hk", help="An archive.")]) -> None:
    """List what an archive holds and verify its checksums; needs no model."""
    from hybridkern.lab.compress import workflow

    head, entries = workflow.describe(archive)
    table = Table(title=plain(archive, "table.title"))
    for column in ("file", "kind", "images", "height", "width", "planes", "bytes"):
        table.add_column(column, justify="left" if column in ("file", "kind") else "right")
    for entry in entries:
        table.add_row(plain(entry["name"]), entry["kind"], *map(str, entry["size"]), str(entry["bytes"]))
    console = Console()
    console.print(table)
    print_lines(console, [f"{key}: {head[key]}" for key in ("run", "fingerprint", "shape", "integers")])


def _say(line: str) -> None:
    typer.echo(f"hybridkern: {line}".replace("\n", "\\n"), err=True)
