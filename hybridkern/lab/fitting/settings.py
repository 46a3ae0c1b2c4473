"""The numbers and words that ``fit`` is called with."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from hybridkern._arguments import as_number, as_size

_LARGEST_SEED = 2**40  # each epoch has a seed of its own, a million apart from those of other runs, below 2^63
_SEEDS = "an integer from 0 to 2**40"


@dataclass(frozen=True)
class Settings:
    """See :func:`hybridkern.lab.fit`, whose arguments these are.

    Raises:
        TypeError, ValueError: one of the wrong type or range.
    """

    epochs: int | None
    minutes: float | None
    patience: int
    batch_size: int
    lr: float
    weight_decay: float
    clip: float | None
    schedule: str
    seed: int
    device: str

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("patience", 0), ("batch_size", 1)):
            count = getattr(self, name)
            if count is not None or name != "epochs":
                as_size(name, count, least)
        if as_size("seed", self.seed, 0, expected=_SEEDS) > _LARGEST_SEED:
            raise ValueError(f"seed: got {self.seed}, expected {_SEEDS}")
        for name in ("minutes", "lr", "clip"):
            number = getattr(self, name)
            if number is not None or name == "lr":
                as_number(name, number, lambda v: 0 < v < math.inf, "a finite, positive number")
        as_number("weight_decay", self.weight_decay, lambda v: 0 <= v < math.inf, "a finite number of at least 0")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule: got {self.schedule!r}, expected 'cosine' or 'constant'")
        placed_on(self.device)  # which says if there is none

    def record(self) -> dict[str, Any]:
        """By their names."""
        return dataclasses.asdict(self)


def placed_on(name: str) -> torch.device:
    """The device of ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        ValueError: there is no such device.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: got {name!r}, expected 'auto', 'cpu' or 'cuda'") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not there):
        raise ValueError(
            f"device: got {name!r}, expected one that torch sees here: 'cpu'" + (", 'cuda'" if there else "")
        )
    return device
