"""The codec of a run folder: its flow with networks of integers, made once and kept beside it, or in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hybridkern import codec
from hybridkern.flows import IDF
from hybridkern.hybrid import HybridModel
from hybridkern.lab.archive import DataError, one_line
from hybridkern.lab.recipes.errors import DamagedFileError, RecipeError
from hybridkern.lab.recipes.workflow import load_run

_SAMPLE = 256


def flow_of(run: Path) -> IDF:
    """The integer flow on images of a finished run.

    Raises:
        RecipeError: no such run, or a model of another kind.
    """
    record, task = load_run(run)
    model = getattr(task, "model", None)
    flow = model.flow if isinstance(model, HybridModel) else model
    if not isinstance(flow, IDF) or len(flow.shape) != 3:
        raise RecipeError(
            f"{run}: holds a model of the recipe {record.recipe.name} that is no integer flow on images; one is "
            "trained by: hybridkern train digits --set levels=2 --set dropout=0"
        )
    return flow


def codec_for(run: Path, integers: bool, tiles: np.ndarray | None) -> codec.Codec:
    """A codec to compress with; the quantized model is made where the run folder holds none yet.

    Args:
        run: folder of a finished run.
        integers: whether the networks are integers.
        tiles: some of the images, ``(n, C, h, w)``, in place of training data that are no longer there.

    Raises:
        RecipeError: no such run, or its networks have no form in integers.
    """
    flow = flow_of(run)
    if not integers:
        return codec.Codec(flow)
    path = _path(run, flow)
    if path.exists():
        return codec.Codec(_load(path))
    sample = _training_images(run, flow)
    if sample is None:
        sample = None if tiles is None else torch.from_numpy(tiles[:_SAMPLE].astype(np.int64))
    if sample is None or not len(sample):
        raise RecipeError(f"{run}: its training data are gone, and no image is as large as a tile: nothing to go by")
    try:
        model = codec.quantize(flow, sample)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{run}: {one_line(error)}; --float64 takes any network") from error
    codec.save(model, path)
    return codec.Codec(model)


def codec_that_made(run: Path, integers: bool, fingerprint: str) -> codec.Codec:
    """The codec of a run that an archive needs.

    Raises:
        RecipeError: the run has another one.
    """
    if integers:
        for path in sorted(run.glob("codec-*.npz")):
            found = codec.Codec(_load(path))
            if found.fingerprint.hex() == fingerprint:
                return found
        raise RecipeError(
            f"{run}: holds no quantized model with the fingerprint {fingerprint}, which the archive needs"
        )
    found = codec.Codec(flow_of(run))
    if found.fingerprint.hex() != fingerprint:
        raise RecipeError(
            f"{run}: got the fingerprint {found.fingerprint.hex()}, expected {fingerprint}, the archive's"
        )
    return found


def _path(run: Path, flow: IDF) -> Path:
    """Another model, another file."""
    return run / f"codec-{codec.Codec(flow).fingerprint.hex()[:12]}.npz"


def _load(path: Path) -> codec.QuantizedIDF:
    try:
        return codec.load(path)
    except ValueError as error:
        raise DamagedFileError(one_line(error)) from error


def _training_images(run: Path, flow: IDF) -> torch.Tensor | None:
    """Training images of the run, as its flow takes them, where its data are still there."""
    record, _ = load_run(run)
    try:
        rows = torch.as_tensor(record.recipe.load(record.config).train.x[:_SAMPLE])
    except (RecipeError, DataError, OSError, ValueError):
        return None
    h, w, *colours = record.data.shape if len(record.data.shape) > 1 else (1, *record.data.shape)
    c = colours[0] if colours else 1
    if c != flow.shape[0] or h > flow.shape[1] or w > flow.shape[2]:
        return None
    return rows.reshape(-1, h, w, c).permute(0, 3, 1, 2).round().long()  # colours last in a row
