"""Whether anything that is accelerated is slower: ``python -m benchmarks.integrations.sizes``.

    python -m benchmarks.integrations.sizes                                       # what is missing, then the table
    python -m benchmarks.integrations.sizes --models "zuko, MAF" --dims 8         # a part, for a look
    python -m benchmarks.integrations.sizes --anew                                # all of it once more

A training step and an evaluation of the log-probability without gradients, of small models over dimensions and batch
sizes, the library and its accelerated copy in turn. Each row goes to ``.bench/integrations-sizes.csv`` as soon as it is
measured: a run that was ended goes on where it was. Rows are those of one state of the sources: after a change measure
anew. When all rows are there and the library against itself is equal, they go to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import _environment
from benchmarks._results import RESULTS, UNVERIFIED, Record, read_csv, write_csv
from benchmarks.integrations.sizes import table
from benchmarks.integrations.sizes.models import MODELS, Loss, Model
from benchmarks.integrations.sizes.pairs import timed
from benchmarks.integrations.works import OPTIONS
from hybridkern.integrations import accelerate

DIMS, BATCHES = (8, 16, 32, 64), (64, 256, 1024, 4096)
CONTROL_AT = (16, 256)
BUDGET = 1.0  # seconds of a row, where seven rounds take no longer
_CONDITIONS = ("threads", "cpu", "instruction_set", "torch")


class Row(NamedTuple):
    """One row of the results: which model, what of it, and at which size."""

    model: str
    kind: str
    dims: int
    batch: int

    @staticmethod
    def of(record: Record) -> Row:
        """The row of a record."""
        return Row(record["model"], record["kind"], int(record["dims"]), int(record["batch"]))


def every_row() -> list[Row]:
    """All rows, in the order of the file."""
    return [
        Row(model.name, kind, dims, batch)
        for model in MODELS
        for dims in DIMS
        for batch in BATCHES
        for kind in (table.STEP, table.EVALUATION, *((table.CONTROL,) if (dims, batch) == CONTROL_AT else ()))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.integrations.sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="", help="a word in the names of those to measure")
    parser.add_argument("--dims", type=int, nargs="+", choices=DIMS, default=DIMS)
    parser.add_argument("--batches", type=int, nargs="+", choices=BATCHES, default=BATCHES)
    parser.add_argument("--anew", action="store_true", help="measure also what is there already")
    parser.add_argument("--threads", type=int, default=_environment.THREADS, help=f"default {_environment.THREADS}")
    parser.add_argument("--kept", type=Path, default=UNVERIFIED, help="folder of the rows so far")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    options = parser.parse_args(arguments)
    wanted = [
        row
        for row in every_row()
        if options.models in row.model and row.dims in options.dims and row.batch in options.batches
    ]
    if not wanted:
        names = "; ".join(model.name for model in MODELS)
        parser.error(f"models: got {options.models!r}, which is in none of {names}")
    _environment.with_allocator_settings("benchmarks.integrations.sizes", arguments)
    torch.set_num_threads(options.threads)
    found = _measure(wanted, options.kept / table.FILE, options.anew)
    return _conclude(found, options.results)


def _measure(wanted: Sequence[Row], path: Path, anew: bool) -> dict[Row, Record]:
    """What is missing of ``wanted``, row by row into the file; all that is there now."""
    conditions = _environment.conditions()
    found = _kept(path, conditions)
    if anew:
        found = {row: record for row, record in found.items() if row not in wanted}
    missing = [row for row in wanted if row not in found]
    for group in _by_size(missing):
        sides = _sides(group[0])
        for row in group:
            found[row] = measured(row, sides, conditions)
            write_csv(path, [found[each] for each in every_row() if each in found])
            print(_line(found[row]), flush=True)
    return found


def _kept(path: Path, conditions: Record) -> dict[Row, Record]:
    """The rows of earlier runs, as far as they were measured under these conditions."""
    records = read_csv(path) if path.exists() else []
    known = set(every_row())
    return {
        Row.of(record): record
        for record in records
        if all(record[name] == conditions[name] for name in _CONDITIONS) and Row.of(record) in known
    }


def _by_size(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of one model and size, which share what is built."""
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.dims, row.batch), []).append(row)
    yield from groups.values()


class Sides(NamedTuple):
    """A library's model, its accelerated copy, and what is done with them."""

    library: nn.Module
    accelerated: nn.Module
    loss: Loss
    x: Tensor


def _sides(row: Row) -> Sides:
    (model,) = (model for model in MODELS if model.name == row.model)
    return sides_of(model, row.dims, row.batch)


def sides_of(model: Model, dims: int, batch: int) -> Sides:
    """Both models, called once."""
    torch.manual_seed(0)
    library = model.build(dims)
    x = torch.randn(batch, dims, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what the libraries call that torch deprecates
        model.loss(library, x)  # initializes
    accelerated = copy.deepcopy(library)
    accelerate(accelerated, **OPTIONS[model.way])  # type: ignore[arg-type]
    return Sides(library, accelerated, model.loss, x)


def measured(row: Row, sides: Sides, conditions: Record, budget: float = BUDGET) -> Record:
    """The record of a row."""
    run = _step if row.kind != table.EVALUATION else _evaluation
    other = sides.library if row.kind == table.CONTROL else sides.accelerated
    pair = timed(run(sides.library, sides), run(other, sides), budget)
    values: Record = {"model": row.model, "kind": row.kind, "dims": str(row.dims), "batch": str(row.batch)}
    values |= {
        "library_s": f"{pair.first:.4g}",
        "accelerated_s": f"{pair.second:.4g}",
        "ratio": f"{pair.ratio:.4f}",
        "low": f"{pair.low:.4f}",
        "high": f"{pair.high:.4f}",
        "rounds": str(pair.rounds),
    }
    return values | conditions


def _step(model: nn.Module, sides: Sides) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad(set_to_none=True)
        sides.loss(model, sides.x).backward()

    return run


def _evaluation(model: nn.Module, sides: Sides) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            sides.loss(model, sides.x)

    return run


def _line(record: Record) -> str:
    place = f"{record['model']}, {record['kind']}, {record['dims']} dims, batch {record['batch']}"
    mark = "  SLOWER" if table.is_slower(record) else "  DISTURBED" if table.disturbed(record) else ""
    return f"{place}: {record['ratio']} ({record['low']} to {record['high']}, {record['rounds']} rounds){mark}"


def _conclude(found: dict[Row, Record], folder: Path) -> int:
    """Publishes what is whole and quiet; 1 where a row is slower or the library does not equal itself."""
    ordered = [found[row] for row in every_row() if row in found]
    print(table.render(ordered))
    unequal = [record for record in ordered if table.disturbed(record)]
    missing = len(every_row()) - len(ordered)
    if unequal:
        print(
            f"not published: {len(unequal)} rows of the library against itself are unequal; measure these models anew"
        )
    elif missing:
        print(f"not published: {missing} rows are missing")
    else:
        write_csv(folder / table.FILE, ordered)
        print(f"results: {folder / table.FILE}")
    return 1 if unequal or any(map(table.is_slower, ordered)) else 0


if __name__ == "__main__":
    sys.exit(main())
