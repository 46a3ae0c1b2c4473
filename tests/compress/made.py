"""Calls and pictures that the tests of this folder share."""

from __future__ import annotations

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from hybridkern.lab.cli import app
from hybridkern.lab.compress import pictures


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def picture(mode: str, height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    planes = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.linspace(0, 16, width)[None, :, None] + rng.integers(0, 3, (height, width, planes))
    return pictures.as_image(pixels.astype(np.uint8))
