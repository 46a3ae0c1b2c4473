"""A run that compresses, and a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.compress.made import call, picture


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the digits recipe whose flow is on images."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    settings = ("levels=2", "dropout=0", "hidden=8", "head_hidden=8", "coupling=quarter", "net=resnet", "shift=0")
    call("train", "digits", "--epochs", 1, "--out", out, *(x for s in settings for x in ("--set", s)))
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "pictures" / "deeper"
    inside.mkdir(parents=True)
    for i, (mode, size) in enumerate({"L": (20, 17), "LA": (8, 8), "RGB": (5, 30), "RGBA": (16, 9)}.items()):
        picture(mode, *size, seed=i).save(inside / f"{mode}.png")
    picture("RGB", 12, 11).save(inside.parent / "one.webp", lossless=True)
    images = np.random.default_rng(1).integers(0, 17, (5, 9, 8), dtype=np.uint8)
    np.savez(inside.parent / "many.npz", images=images, labels=np.arange(5))
    (inside / "notes.txt").write_text("left out")
    return inside.parent
