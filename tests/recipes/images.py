"""Small data sets of images and settings of a small Glow, for the tests of the recipes on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SMALL = {"levels": 1, "steps": 1, "hidden": 8, "batch_size": 8, "validation": 16, "checkpoint_steps": 3, "draws": 1}


def arrays(count: int = 96, shape: tuple[int, ...] = (8, 8, 3), classes: int = 3, bright: int = 0) -> dict[str, Any]:
    """Noise on a ground whose brightness says the class."""
    rng = np.random.default_rng(count)
    labels = np.arange(count, dtype=np.int64) % classes
    ground = (40 + 60 * labels + bright).reshape(-1, *[1] * len(shape))
    return {"images": (ground + rng.integers(0, 20, (count, *shape))).astype(np.uint8), "labels": labels}


def npz(path: Path, **options: Any) -> str:
    values = arrays(**options)
    split = np.zeros(len(values["labels"]), np.int8)
    split[-24:] = 1
    np.savez(path, **values, split=split)
    return str(path)
