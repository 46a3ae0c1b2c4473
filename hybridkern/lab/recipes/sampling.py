"""Samples of a finished run, as a picture or as numbers."""

from __future__ import annotations

import math
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
from hybridkern.lab.recipes.run_folder import RunRecord
from hybridkern.lab.recipes.vectors import plots as vector_plots
from hybridkern.lab.recipes.workflow import load_run, stored_metrics

_SUFFIXES = (".png", ".npz", ".csv")


def sample_run(
    folder: Path, n: int, out: Path | None, seed: int, *, temperature: float = 1.0, label: int | None = None
) -> Path:
    """Draws ``n`` samples of the model in ``folder`` into a ``.png``, ``.npz`` or, of vectors, ``.csv`` file.

    The scale of the latents is multiplied by ``temperature``; with ``label`` the samples are of that class.

    The ``.npz`` file holds ``images (n, H, W[, C])`` int64 as drawn: a sample may lie outside the data's grey range;
    or, of a recipe on vectors, ``x (n, D)`` in the data's units. The ``.csv`` file has a line of names of the columns.

    Raises:
        RecipeError: an unknown suffix, a file that exists or cannot be written; an unusable run folder; a model without
            temperature, without classes, or without this one.
    """
    if out is not None and out.suffix not in _SUFFIXES:
        raise RecipeError(f"--out: got {out}, expected a file ending in .png, .npz or .csv")
    if out is not None and out.exists():
        raise RecipeError(f"--out: {out} exists already; choose another file")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise RecipeError(f"--temperature: got {temperature}, expected a finite number of at least 0")
    record, task = load_run(folder)
    if label is not None:
        _check_class(label, record)
    path = out or folder / f"sampled.{record.recipe.sampled}"
    if path.suffix == ".csv" and record.data.grey_levels:
        raise RecipeError(f"--out: got {path}, expected a file ending in .png or .npz: the samples are images")
    try:
        x = draw(task, n, seed, temperature=temperature, label=label)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{folder}: the model cannot be sampled ({one_line(error)})") from error
    if path.suffix == ".png":
        how = ("" if label is None else f", class {label}") + (
            "" if temperature == 1 else f", temperature {temperature:g}"
        )
        return save_figure(_figure(x, record.data, how), path)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            temporary.write_text(as_csv(x.numpy(), _names(folder, record.data)), encoding="utf-8")
        elif record.data.grey_levels:
            np.savez_compressed(temporary, images=x.round().long().numpy().reshape(n, *record.data.shape))
        else:
            np.savez_compressed(temporary, x=x.numpy())
    return path


def _check_class(label: int, record: RunRecord) -> None:
    classes = record.data.classes
    if not classes:
        raise RecipeError(f"--class: got {label}, expected none: the recipe '{record.recipe.name}' has no classes")
    if not 0 <= label < classes:
        raise RecipeError(f"--class: got {label}, expected 0 to {classes - 1} ({classes} classes)")


def _names(folder: Path, data: DataShape) -> list[str]:
    """Of the columns, where the run knows them."""
    names: list[str] = stored_metrics(folder).get("columns") or [f"x{index + 1}" for index in range(data.dim)]
    return names


def _figure(x: Tensor, data: DataShape, how: str) -> Figure:
    if data.grey_levels:
        return plots.images(x, data.shape, data.grey_levels, f"{len(x)} samples from the model{how}")
    return vector_plots.samples(x, how=how)
