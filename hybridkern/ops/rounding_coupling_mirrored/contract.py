"""What the registered parts of ``rounding_coupling_mirrored`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _factor(beta: Tensor, index: int, main: str, x: Tensor) -> None:
    _rules.same("beta", beta, main, x, beta.shape)
    if beta.ndim != 1:
        raise ValueError(f"beta: got shape {_tensors.shape_text(beta.shape)}, expected one dimension")
    if isinstance(index, int) and isinstance(beta.shape[0], int) and not 0 <= index < beta.shape[0]:
        raise ValueError(f"index: got {index}, expected one of the {beta.shape[0]} places of beta")


def _mirrored(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> None:
    _rules.working("a", a, 2)
    _rules.same("b", b, "a", a)
    _rules.same("t", t, "a", a)
    _factor(beta, index, "a", a)


def _mirrored_backward(first: Tensor, second: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> None:
    _rules.working("t", t, 2)
    _rules.same("first", first, "t", t)
    _rules.same("second", second, "t", t)
    _factor(beta, index, "t", t)


CONTRACTS: Contracts = {"forward": _mirrored, "backward": _mirrored_backward}
