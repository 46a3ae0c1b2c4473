"""Samples of a finished run, as a picture or as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern.lab import plots
from hybridkern.lab.archive import one_line
from hybridkern.lab.recipes.density.results import as_csv
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.evaluation import draw
from hybridkern.lab.recipes.files import replacing
from hybridkern.lab.recipes.pictures import save_figure
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.vectors import plots as vector_plots
from hybridkern.lab.recipes.workflow import load_run, stored_metrics

_SUFFIXES = (".png", ".npz", ".csv")


def sample_run(folder: Path, n: int, out: Path | None, seed: int) -> Path:
    """Draws ``n`` samples of the model in ``folder`` into a ``.png``, ``.npz`` or, of vectors, ``.csv`` file.

    The ``.npz`` file holds ``images (n, H, W[, C])`` int64 as drawn: a sample may lie outside the data's grey range;
    or, of a recipe on vectors, ``x (n, D)`` in the data's units. The ``.csv`` file has a line of names of the columns.

    Raises:
        RecipeError: an unknown suffix, a file that exists or cannot be written; an unusable run folder.
    """
    if out is not None and out.suffix not in _SUFFIXES:
        raise RecipeError(f"--out: got {out}, expected a file ending in .png, .npz or .csv")
    if out is not None and out.exists():
        raise RecipeError(f"--out: {out} exists already; choose another file")
    record, task = load_run(folder)
    path = out or folder / f"sampled.{record.recipe.sampled}"
    if path.suffix == ".csv" and record.data.grey_levels:
        raise RecipeError(f"--out: got {path}, expected a file ending in .png or .npz: the samples are images")
    try:
        x = draw(task, n, seed)
    except ValueError as error:
        raise RecipeError(f"{folder}: the model cannot be sampled ({one_line(error)})") from error
    if path.suffix == ".png":
        return save_figure(_figure(x, record.data), path)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            temporary.write_text(as_csv(x.numpy(), _names(folder, record.data)), encoding="utf-8")
        elif record.data.grey_levels:
            np.savez_compressed(temporary, images=x.round().long().numpy().reshape(n, *record.data.shape))
        else:
            np.savez_compressed(temporary, x=x.numpy())
    return path


def _names(folder: Path, data: DataShape) -> list[str]:
    """Of the columns, where the run knows them."""
    names: list[str] = stored_metrics(folder).get("columns") or [f"x{index + 1}" for index in range(data.dim)]
    return names


def _figure(x: Tensor, data: DataShape) -> Figure:
    if data.grey_levels:
        return plots.images(x, data.shape, data.grey_levels, f"{len(x)} samples from the model")
    return vector_plots.samples(x)
