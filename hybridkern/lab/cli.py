"""The command line: ``hybridkern train | evaluate | sample | compress | reproduce | recipes | backends`` and so on.

Exit codes: 0 done, 1 something was wrong with the data or a folder, 2 wrong usage, 130 interrupted (resumable).
Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    from rich.console import Console

    from hybridkern_command import archives, options
    from hybridkern_command.console import (
        check_usage,
        errors_in_one_line,
        plain,
        print_lines,
        say_how_to_resume,
        set_threads,
        table_of,
    )
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


@app.command()
def train(
    recipe: options.Recipe,
    data: options.Data = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lam: options.Lam = None,
    lattice: options.Lattice = None,
    parts: options.Parts = None,
    data_root: options.DataRoot = None,
    test_data: options.TestData = None,
    download: options.Download = False,
    flow: options.Flow = None,
    ood: options.Ood = None,
    minutes: options.Minutes = None,
    train_size: options.TrainSize = None,
    validation: options.Validation = None,
    precision: options.Precision = None,
    memory: options.Memory = None,
    device: options.Device = None,
    devices: options.Devices = None,
    nodes: options.Nodes = None,
    option: options.Option = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    out: options.Out = None,
    resume: options.Resume = False,
) -> None:
    """Train RECIPE; write weights, figures and plots to a run folder.

    'hybridkern recipes RECIPE' lists its settings and defaults.
    """
    with errors_in_one_line():
        from hybridkern.lab.recipes.recipe import get_recipe, recipe_names
        from hybridkern.lab.recipes.run_folder import RunFolder, free_folder

        check_usage("RECIPE", recipe, recipe_names(), out, resume)
        settings: dict[str, object] = {"epochs": epochs, "batch_size": batch_size, "lam": lam, "seed": seed}
        settings |= {"data": data and str(data), "lattice": lattice, "parts": parts}
        settings |= {"data_root": data_root and str(data_root), "test_data": test_data and str(test_data), "ood": ood}
        settings |= {"flow": flow, "minutes": minutes, "train_size": train_size, "validation": validation}
        settings |= {"precision": precision, "memory": memory, "device": device, "devices": devices, "nodes": nodes}
        settings |= get_recipe(recipe).config.parsed(recipe, option or [])
        folder = out or free_folder(recipe)
        set_threads(threads)
        try:
            from hybridkern.lab.recipes import workflow

            run = workflow.train(
                recipe, settings, folder, resume=resume, download=download, console=Console(stderr=True)
            )
        except KeyboardInterrupt:
            say_how_to_resume(f"train {recipe}", folder, RunFolder(folder).config)
            raise typer.Exit(130) from None
        if not run.metrics:
            return  # of several processes, one that keeps no folder
        published = get_recipe(recipe).published(run.record.config)
        _show(f"{recipe}, seed {run.record.config.seed}", {"this run": run.metrics}, published)
        print_lines(Console(), [*run.pictures, folder / "metrics.json"])


@app.command()
def evaluate(
    folder: options.Directory,
    ood: options.Ood = None,
    threads: options.Threads = None,
) -> None:
    """Evaluate a finished run again on its test data, and show the stored figures next to the new ones."""
    with errors_in_one_line():
        from hybridkern.lab.recipes.workflow import evaluate_run, stored_metrics

        set_threads(threads)
        stored = stored_metrics(folder)
        record, metrics, drawn = evaluate_run(folder, ood)
        metrics["valid_likelihood"] = stored["valid_likelihood"]
        _show(f"{record.recipe.name}: {folder}", {"now": metrics, "metrics.json": stored})
        print_lines(Console(), drawn)


@app.command()
def sample(
    folder: options.Directory,
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
    with errors_in_one_line():
        from hybridkern.lab.recipes.sampling import sample_run

        print_lines(Console(), [sample_run(folder, n, out, seed, temperature=temperature, label=label)])


@app.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the experiment; 'hybridkern recipes' lists them.", show_default=False
        ),
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Total wall time of training.", show_default="the experiment's")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Training data of the experiment.")] = None,
    test_data: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="A separate file of test data.")] = None,
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
    threads: options.Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the results.", show_default="runs/reproduce-NAME, or the next free one"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the experiment in --out.")] = False,
) -> None:
    """Rerun a published experiment: a table with the published figures, a picture and a JSON file."""
    with errors_in_one_line():
        from hybridkern.lab.recipes.run_folder import free_folder
        from hybridkern.lab.reproduce.experiment import experiment_names
        from hybridkern.lab.reproduce.workflow import reproduce as run
        from hybridkern.lab.reproduce.writing import for_console

        check_usage("NAME", name, experiment_names(), out, resume)
        folder = out or free_folder(f"reproduce-{name}")
        set_threads(threads)
        sources: dict[str, Any] = {"data": data, "test_data": test_data, "ood": ood, "data_root": data_root}
        try:
            done = run(name, folder, minutes=minutes, seed=seed, variant=variant, resume=resume, **sources)
        except KeyboardInterrupt:
            say_how_to_resume(f"reproduce {name}", folder, folder / "experiment.json")
            raise typer.Exit(130) from None
        console = Console()
        for table in done.result.tables:
            console.print(for_console(table))
        print_lines(console, [*done.result.conditions, *done.result.shortfalls, *done.paths])


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Show the settings of this recipe.", show_default=False)
    ] = None,
) -> None:
    """List the recipes and experiments, or the settings of one recipe with their defaults and meanings."""
    with errors_in_one_line():
        from hybridkern.lab.recipes.recipe import get_recipe, recipe_names
        from hybridkern.lab.recipes.settings import settings_of
        from hybridkern.lab.reproduce.experiment import experiment_names

        if name is not None:
            check_usage("RECIPE", name, recipe_names(), None, False)
            recipe = get_recipe(name)
            table = table_of(f"{name}: {recipe.summary}", "--set NAME=VALUE", "type", "default", "meaning")
            for setting in settings_of(recipe):
                table.add_row(*map(plain, setting))
        else:
            table = table_of("hybridkern train RECIPE", "recipe", "what it trains")
            for each in recipe_names():
                table.add_row(each, get_recipe(each).summary)
        Console().print(table)
        if name is None:
            print_lines(Console(), [f"hybridkern reproduce NAME: {', '.join(experiment_names())}"])


@app.command()
def backends() -> None:
    """List the backends of the operators, and say why one is not available."""
    import hybridkern

    table = table_of("", "backend", "available", "reason")
    for name, status in hybridkern.backends().items():
        table.add_row(name, "yes" if status.available else "no", plain(status.reason))
    Console().print(table)


def _command(function: Callable[..., None]) -> None:
    """Adds a command of :mod:`hybridkern_command.archives`."""

    @app.command(function.__name__)
    @wraps(function)
    def run(*args: Any, **named: Any) -> None:
        with errors_in_one_line():
            function(*args, **named)


for _function in (archives.compress, archives.decompress, archives.inspect):
    _command(_function)


def _show(title: str, columns: dict, published: Published | None = None) -> None:
    from hybridkern.lab.recipes.report import notes, result_table

    console = Console()
    console.print(result_table(plain(title, "table.title"), columns, published))
    print_lines(console, notes([*columns.values()]))


def main() -> None:
    """Entry point of the ``hybridkern`` command."""
    app()


if __name__ == "__main__":
    main()
