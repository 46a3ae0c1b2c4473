"""Tables that the tests of the recipe ``density`` write and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def table(rows: int = 400, seed: int = 0) -> np.ndarray:
    """Two numbers that depend on each other, and a rounded one, in units far from 1."""
    rng = np.random.default_rng(seed)
    a = 5e6 + 2e5 * rng.normal(size=rows)
    return np.stack([a, 1e-3 * (np.sin(a / 2e5) + 0.3 * rng.normal(size=rows)), 5 * rng.integers(0, 4, rows)], 1)


def write(path: Path, values: np.ndarray, names: str = "a,b,steps", delimiter: str = ",") -> str:
    lines = [names.replace(",", delimiter)] * bool(names)
    lines += [delimiter.join(repr(float(value)) for value in row) for row in values]
    path.write_text("\n".join(lines) + "\n")
    return str(path)
