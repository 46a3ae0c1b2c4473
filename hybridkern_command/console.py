"""What every command says: tables, lines, errors and notes; torch and the package are imported when they are needed."""

from __future__ import annotations

import logging
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def plain(value: object, style: str = "") -> Text:
    """Text as it is, on one line: brackets are no markup, ``:name:`` is no emoji.

    Line breaks, control characters and bytes that are no UTF-8, all of which names of files may hold, become escapes.
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return Text("".join(escaped), style)


def table_of(title: object, *columns: str) -> Table:
    """A table with these columns, whose title may be empty."""
    table = Table(title=plain(title, "table.title") if title else None, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns what a user can put right into one line on standard error and exit code 1; warnings into a line each."""
    from hybridkern.lab.data import DataError
    from hybridkern.lab.recipes.errors import RecipeError

    try:
        with warnings.catch_warnings(), _notes_of_the_log():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            yield
    except (RecipeError, DataError) as error:
        fault = str(error)
    except BrokenPipeError:
        raise  # whoever read the output has gone; typer knows how to end then
    except OSError as error:
        fault = f"{error.filename or 'standard output'}: {error.strerror or error}"
    except MemoryError:
        fault = "not enough memory"
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        fault = "not enough memory"
    else:
        return
    typer.echo(f"hybridkern: {fault}".replace("\n", "\\n"), err=True)  # names of files may hold line breaks
    raise typer.Exit(1)


@contextmanager
def _notes_of_the_log() -> Iterator[None]:
    """What the laboratory logs, as lines on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("hybridkern: note: %(message)s"))
    log = logging.getLogger("hybridkern")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _show_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"hybridkern: note: {message}", err=True)


def print_lines(console: Console, lines: Iterable[object]) -> None:
    """Prints each as a line of its own, however long, and as it is."""
    for line in lines:
        console.print(plain(line), soft_wrap=True)


def check_usage(what: str, name: str, names: list[str], out: Path | None, resume: bool) -> None:
    """Ends with exit code 2 where there is no such name, or ``--resume`` without a folder."""
    if name not in names:
        typer.echo(f"hybridkern: {what}: got '{name}', expected one of {', '.join(names)}", err=True)
        raise typer.Exit(2)
    if resume and out is None:
        typer.echo("hybridkern: --resume: needs the folder of the run, --out DIR", err=True)
        raise typer.Exit(2)


def set_threads(threads: int | None) -> None:
    """Has torch use so many threads, where a number is given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def say_how_to_resume(command: str, folder: Path, begun: Path) -> None:
    """What to type after Ctrl-C; ``begun`` is a file that is there once something was written."""
    if begun.exists():
        out = shlex.quote(str(folder))
        typer.echo(f"\nInterrupted. To continue: hybridkern {command} --out {out} --resume", err=True)
    else:
        typer.echo("\nInterrupted before anything was written.", err=True)
