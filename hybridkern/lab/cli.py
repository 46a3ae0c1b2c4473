"""The command line: ``hybridkern train | evaluate | sample | compress | reproduce | recipes | backends`` and so on.

Exit codes: 0 done, 1 something was wrong with the data or a folder, 2 wrong usage, 130 interrupted (resumable).
Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    from rich.console import Console
    from rich.table import Table

    from hybridkern_command import archives
except ModuleNotFoundError as missing:
    sys.exit(f"hybridkern: the command line needs '{missing.name}'; in a clone: pip install '.[train]'")

if TYPE_CHECKING:
    from hybridkern.lab.recipes.recipe import Published

app = typer.Typer(
    help="Train, evaluate and sample flow-based hybrid models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import torch

        import hybridkern

        typer.echo(f"hybridkern {hybridkern.__version__}, torch {torch.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate and sample flow-based hybrid models."""


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.", show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's choice")]


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="cifar10, cubic, density, digits, digits-tutorial, digits-vae, flights, mnist, mnist-vae, moons, "
            "svhn, toy-density.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Data to train on in place of the recipe's: .npz; density: .csv too."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples per step.")] = None,
    lam: Annotated[
        float | None,
        typer.Option(
            help="Weight of -log p(x) in nats beside -log p(y|x); mnist and svhn: per dimension, lam / D.",
            show_default="recipe's",
        ),
    ] = None,
    lattice: Annotated[
        str | None, typer.Option(help="exact: round(beta t), stays on integers; tutorial: beta round(t), leaves them.")
    ] = None,
    parts: Annotated[int | None, typer.Option(help="Parts a coupling updates (digits-tutorial: 1 or 4).")] = None,
    data_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the official files (mnist, svhn).")
    ] = None,
    test_data: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Test data in a file of their own (mnist, svhn, density).")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the official files into --data-root.")] = False,
    flow: Annotated[
        str | None, typer.Option(help="Of a table: nsf, maf, realnvp or residual (density, toy-density).")
    ] = None,
    ood: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Another set to score; cifar10, mnist, svhn: official files."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time of training; the learning rate follows it.")] = None,
    train_size: Annotated[int | None, typer.Option(min=1, help="Only the first so many training images.")] = None,
    validation: Annotated[int | None, typer.Option(min=0, help="Training images held out for the curves.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16, the precision of the networks (mnist, svhn).")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="store, recompute or invert: activations of the flow (mnist, svhn).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes, or GPUs, of a machine that share each batch (mnist, svhn).")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; torchrun or SLURM starts the processes (mnist, svhn).")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other setting of the recipe; see 'hybridkern recipes RECIPE'."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed for weights, data order and samples.")] = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder.", show_default="runs/RECIPE, or the next free one")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out; a finished one with more --epochs or --minutes."),
    ] = False,
) -> None:
    """Train RECIPE; write weights, figures and plots to a run folder.

    'hybridkern recipes RECIPE' lists its settings and defaults.
    """
    with _errors_in_one_line():
        from hybridkern.lab.recipes.recipe import get_recipe, recipe_names
        from hybridkern.lab.recipes.run_folder import RunFolder, free_folder

        _check_usage("RECIPE", recipe, recipe_names(), out, resume)
        options: dict[str, object] = {"epochs": epochs, "batch_size": batch_size, "lam": lam, "seed": seed}
        options |= {"data": data and str(data), "lattice": lattice, "parts": parts}
        options |= {"data_root": data_root and str(data_root), "test_data": test_data and str(test_data), "ood": ood}
        options |= {"flow": flow, "minutes": minutes, "train_size": train_size, "validation": validation}
        options |= {"precision": precision, "memory": memory, "device": device, "devices": devices, "nodes": nodes}
        options |= get_recipe(recipe).config.parsed(recipe, option or [])
        folder = out or free_folder(recipe)
        _set_threads(threads)
        try:
            from hybridkern.lab.recipes import workflow

            run = workflow.train(
                recipe, options, folder, resume=resume, download=download, console=Console(stderr=True)
            )
        except KeyboardInterrupt:
            _say_how_to_resume(f"train {recipe}", folder, RunFolder(folder).config)
            raise typer.Exit(130) from None
        if not run.metrics:
            return  # of several processes, one that keeps no folder
        published = get_recipe(recipe).published(run.record.config)
        _show(f"{recipe}, seed {run.record.config.seed}", {"this run": run.metrics}, published)
        _print_lines(Console(), [*run.pictures, folder / "metrics.json"])


@app.command()
def evaluate(
    folder: Directory,
    ood: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Another set to score; cifar10, mnist, svhn: official files."),
    ] = None,
    threads: Threads = None,
) -> None:
    """Evaluate a finished run again on its test data, beside the figures it was written with."""
    with _errors_in_one_line():
        from hybridkern.lab.recipes.workflow import evaluate_run, stored_metrics

        _set_threads(threads)
        stored = stored_metrics(folder)
        record, metrics, drawn = evaluate_run(folder, ood)
        metrics["valid_likelihood"] = stored["valid_likelihood"]
        _show(f"{record.recipe.name}: {folder}", {"now": metrics, "metrics.json": stored})
        _print_lines(Console(), drawn)


@app.command()
def sample(
    folder: Directory,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .png picture, an .npz array or a .csv table.",
            show_default="DIR/sampled.*",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="T", help="Factor on the scale of the latents: below 1 samples are more typical and alike."
        ),
    ] = 1.0,
    label: Annotated[
        int | None,
        typer.Option(
            "--class", metavar="Y", help="Draw samples of this class, 0, 1, ... .", show_default="all classes"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the samples.")] = 0,
) -> None:
    """Draw samples from a finished run's model."""
    with _errors_in_one_line():
        from hybridkern.lab.recipes.sampling import sample_run

        _print_lines(Console(), [sample_run(folder, n, out, seed, temperature=temperature, label=label)])


@app.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the experiment; 'hybridkern recipes' lists them.", show_default=False
        ),
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Wall time of all its training.", show_default="the experiment's")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Training data of the experiment.")] = None,
    test_data: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Test data, if in a file of their own.")
    ] = None,
    ood: Annotated[str | None, typer.Option(metavar="FILE.npz", help="Out-of-distribution set to score.")] = None,
    data_root: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of official files.")] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="vae-mnist: labels (1000, 100, 600, 3000); residual-mnist: lambda (1/D, 0, 1); codec: mnist or svhn."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed for drawn data, weights and order.", show_default="0")
    ] = None,
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="runs/reproduce-NAME, or the next free one")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the experiment in --out.")] = False,
) -> None:
    """Rerun a published experiment: a table beside the published one, a picture and a JSON file."""
    with _errors_in_one_line():
        from hybridkern.lab.recipes.run_folder import free_folder
        from hybridkern.lab.reproduce.experiment import experiment_names
        from hybridkern.lab.reproduce.workflow import reproduce as run
        from hybridkern.lab.reproduce.writing import for_console

        _check_usage("NAME", name, experiment_names(), out, resume)
        folder = out or free_folder(f"reproduce-{name}")
        _set_threads(threads)
        sources: dict[str, Any] = {"data": data, "test_data": test_data, "ood": ood, "data_root": data_root}
        try:
            done = run(name, folder, minutes=minutes, seed=seed, variant=variant, resume=resume, **sources)
        except KeyboardInterrupt:
            _say_how_to_resume(f"reproduce {name}", folder, folder / "experiment.json")
            raise typer.Exit(130) from None
        console = Console()
        for table in done.result.tables:
            console.print(for_console(table))
        _print_lines(console, [*done.result.conditions, *done.result.shortfalls, *done.paths])


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Show its settings.", show_default=False)
    ] = None,
) -> None:
    """List the recipes and experiments, or the settings of one recipe with their defaults and meanings."""
    with _errors_in_one_line():
        from hybridkern.lab.recipes.recipe import get_recipe, recipe_names
        from hybridkern.lab.recipes.settings import settings_of
        from hybridkern.lab.reproduce.experiment import experiment_names

        if name is not None:
            _check_usage("RECIPE", name, recipe_names(), None, False)
            recipe = get_recipe(name)
            table = _table(f"{name}: {recipe.summary}", "--set NAME=VALUE", "type", "default", "meaning")
            for setting in settings_of(recipe):
                table.add_row(*setting)
        else:
            table = _table("hybridkern train RECIPE", "recipe", "what it trains")
            for each in recipe_names():
                table.add_row(each, get_recipe(each).summary)
        Console().print(table)
        if name is None:
            _print_lines(Console(), [f"hybridkern reproduce NAME: {', '.join(experiment_names())}"])


@app.command()
def backends() -> None:
    """List the backends of the operators, and why one is missing."""
    import hybridkern

    table = _table("", "backend", "available", "reason")
    for name, status in hybridkern.backends().items():
        table.add_row(name, "yes" if status.available else "no", status.reason)
    Console().print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _command(function: Callable[..., None]) -> None:
    """Adds a command of :mod:`hybridkern_command.archives`."""

    @app.command(function.__name__)
    @wraps(function)
    def run(*args: Any, **named: Any) -> None:
        with _errors_in_one_line():
            function(*args, **named)


for _function in (archives.compress, archives.decompress, archives.inspect):
    _command(_function)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
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


def _print_lines(console: Console, lines: Iterable[object]) -> None:
    for line in lines:
        console.print(str(line), soft_wrap=True, highlight=False, markup=False)


def _check_usage(what: str, name: str, names: list[str], out: Path | None, resume: bool) -> None:
    if name not in names:
        typer.echo(f"hybridkern: {what}: got '{name}', expected one of {', '.join(names)}", err=True)
        raise typer.Exit(2)
    if resume and out is None:
        typer.echo("hybridkern: --resume: needs the folder of the run, --out DIR", err=True)
        raise typer.Exit(2)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _say_how_to_resume(command: str, folder: Path, begun: Path) -> None:
    if begun.exists():
        typer.echo(f"\nInterrupted. Go on where it was with: hybridkern {command} --out {folder} --resume", err=True)
    else:
        typer.echo("\nInterrupted before anything was written.", err=True)


def _show(title: str, columns: dict, published: Published | None = None) -> None:
    from hybridkern.lab.recipes.report import notes, result_table

    console = Console()
    console.print(result_table(title, columns, published))
    for note in notes([*columns.values()]):
        console.print(note, highlight=False)


def main() -> None:
    """Entry point of the ``hybridkern`` command."""
    app()


if __name__ == "__main__":
    main()
