"""What is compared: ours alone, of every benchmark, and training steps of Glow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks._case import Case, Run
from benchmarks._environment import bf16_unit
from benchmarks._results import OURS
from benchmarks.cases import by_file
from benchmarks.glow import sides
from benchmarks.glow.side import Architecture, training_step

Build = Callable[[], Run]
_BATCH = 32


def all_cases() -> dict[str, Build]:
    """By name, in the order of the tables; nothing is allocated before a case is built."""
    found = {case.name: partial(_ours, case) for cases in by_file().values() for case in cases}
    found["Glow step, float32"] = partial(_glow_step, "ours")
    if bf16_unit() is not None:
        found["Glow step, bfloat16"] = partial(_glow_step, "ours-bf16")
    return found


def chosen(words: str) -> list[str]:
    """The names that have all of the words in them; case does not matter."""
    return [name for name in all_cases() if all(word in name.lower() for word in words.lower().split())]


def _ours(case: Case) -> Run:
    return case.build().run[OURS]


def _glow_step(side: str) -> Run:
    torch.manual_seed(0)
    step = training_step(sides.build(side, Architecture()), torch.rand(_BATCH, 3, 32, 32) - 0.5)

    def run() -> tuple[Tensor, ...]:
        return (step(),)

    return run
