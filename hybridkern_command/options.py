"""Options of ``hybridkern train``, and those that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.", show_default=False)]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's choice")]

# of train
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="cifar10, cubic, density, digits, digits-tutorial, digits-vae, flights, mnist, mnist-vae, moons, "
        "svhn, toy-density.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Data to train on instead of the recipe's own: .npz; for density also .csv."),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Maximum number of passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples per step.")]
Lam = Annotated[
    float | None,
    typer.Option(
        help="Weight of -log p(x) against -log p(y|x), in nats per example; for cifar10, mnist, svhn and the VAEs per "
        "dimension: lam / D.",
        show_default="recipe's",
    ),
]
Lattice = Annotated[
    str | None, typer.Option(help="exact: round(beta t), stays on integers; tutorial: beta round(t), leaves them.")
]
Parts = Annotated[int | None, typer.Option(help="Number of parts that a coupling updates (digits-tutorial: 1 or 4).")]
DataRoot = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the official files (cifar10, mnist, svhn).")
]
TestData = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A separate file of test data (recipes on images; density).")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the official files into --data-root.")]
Flow = Annotated[str | None, typer.Option(help="nsf, maf, realnvp or residual (density, toy-density).")]
Ood = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.npz",
        help="Out-of-distribution data to score: a file, or cifar10, mnist or svhn for the official files.",
    ),
]
Minutes = Annotated[float | None, typer.Option(help="Wall time of training; the learning rate follows it.")]
TrainSize = Annotated[int | None, typer.Option(min=1, help="Number of training images, the first ones of the file.")]
Validation = Annotated[int | None, typer.Option(min=0, help="Number of training images held out for the curves.")]
Precision = Annotated[str | None, typer.Option(help="Precision of networks: auto, fp32 or bf16 (recipes on images).")]
Memory = Annotated[str | None, typer.Option(help="What is kept of activations: store, recompute or invert (Glow).")]
Device = Annotated[str | None, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes, or GPUs, per machine that share each batch (recipes on images).")
]
Nodes = Annotated[
    int | None,
    typer.Option(min=1, help="Machines; torchrun or SLURM starts the processes (recipes on images)."),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any other setting of the recipe; see 'hybridkern recipes RECIPE'."
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Random seed for weights, data order and samples.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Run folder.", show_default="runs/RECIPE, or the next free one")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in --out; a finished one with more --epochs or --minutes."),
]
