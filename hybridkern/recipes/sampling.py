"""Samples of a finished run, as a picture or as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hybridkern import plots
from hybridkern.recipes.errors import RecipeError
from hybridkern.recipes.evaluation import draw
from hybridkern.recipes.files import replacing
from hybridkern.recipes.pictures import save_figure
from hybridkern.recipes.workflow import load_run


def sample_run(folder: Path, n: int, out: Path | None, seed: int) -> Path:
    """Draws ``n`` samples of the model in ``folder`` into a ``.png`` or ``.npz`` file.

    The ``.npz`` file holds ``images (n, H, W[, C])`` int64 as drawn: a sample may lie outside the data's grey range.

    Raises:
        RecipeError: an unknown suffix, a file that exists or cannot be written; an unusable run folder.
    """
    path = out or folder / "sampled.png"
    if path.suffix not in (".png", ".npz"):
        raise RecipeError(f"--out: got {path}, expected a file ending in .png or .npz")
    if out is not None and out.exists():
        raise RecipeError(f"--out: {out} exists already; choose another file")
    record, task = load_run(folder)
    x = draw(task, n, seed)
    try:
        if path.suffix == ".png":
            return save_figure(
                plots.images(x, record.data.shape, record.data.levels, f"{n} samples from the model"), path
            )
        with replacing(path) as temporary:
            np.savez_compressed(temporary, images=x.round().long().numpy().reshape(n, *record.data.shape))
    except OSError as error:
        raise RecipeError(f"--out: cannot write {path} ({error.strerror})") from error
    return path
