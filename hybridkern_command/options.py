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
    typer.Option(metavar="FILE", help="Data to train on in place of the recipe's: .npz; density: .csv too."),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Most passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples per step.")]
Lam = Annotated[
    float | None,
    typer.Option(
        help="Weight of -log p(x) in nats beside -log p(y|x); mnist and svhn: per dimension, lam / D.",
        show_default="recipe's",
    ),
]
Lattice = Annotated[
    str | None, typer.Option(help="exact: round(beta t), stays on integers; tutorial: beta round(t), leaves them.")
]
Parts = Annotated[int | None, typer.Option(help="Parts a coupling updates (digits-tutorial: 1 or 4).")]
DataRoot = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the official files (mnist, svhn).")]
TestData = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="Test data in a file of their own (mnist, svhn, density).")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the official files into --data-root.")]
Flow = Annotated[str | None, typer.Option(help="Of a table: nsf, maf, realnvp or residual (density, toy-density).")]
Ood = Annotated[
    str | None,
    typer.Option(metavar="FILE.npz", help="Another set to score; cifar10, mnist, svhn: official files."),
]
Minutes = Annotated[float | None, typer.Option(help="Wall time of training; the learning rate follows it.")]
TrainSize = Annotated[int | None, typer.Option(min=1, help="Only the first so many training images.")]
Validation = Annotated[int | None, typer.Option(min=0, help="Training images held out for the curves.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16, the precision of the networks (mnist, svhn).")]
Memory = Annotated[str | None, typer.Option(help="store, recompute or invert: activations of the flow (mnist, svhn).")]
Device = Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes, or GPUs, of a machine that share each batch (mnist, svhn).")
]
Nodes = Annotated[
    int | None, typer.Option(min=1, help="Machines; torchrun or SLURM starts the processes (mnist, svhn).")
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
