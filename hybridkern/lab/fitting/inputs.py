"""Arrays of the user as tensors that a model takes, checked once and for all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern.flows import IDF, Flow
from hybridkern.hybrid.heads import Classifier, Regressor
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE

_ROUNDING = 0.01


@dataclass(frozen=True)
class Rows:
    """Examples ``x`` ``(N, *shape)``, with targets ``y`` ``(N,)`` and conditions ``(N, width)`` where there are any."""

    x: Tensor
    y: Tensor | None
    context: Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Tensor | slice) -> Rows:
        """Those of these positions."""
        return Rows(*(None if part is None else part[rows] for part in (self.x, self.y, self.context)))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Rows:
        """On that device."""
        return Rows(*(None if part is None else part.to(device) for part in (self.x, self.y, self.context)))  # type: ignore[arg-type]

    def digest(self) -> str:
        """SHA-256 of the values, for a run that goes on to see that they are the same."""
        total = hashlib.sha256()
        for part in (self.x, self.y, self.context):
            if part is not None:
                total.update(f"{tuple(part.shape)}".encode())
                total.update(part.contiguous().view(torch.uint8).numpy().data if part.numel() else b"")
        return total.hexdigest()


def as_rows(model: nn.Module, x: Any, y: Any, context: Any, names: Sequence[str] = ("x", "y", "context")) -> Rows:
    """What the user gave, in the model's dtype.

    Raises:
        TypeError: no array, or targets that this model cannot take.
        ValueError: other numbers of rows, none at all, or a value that is not finite.
    """
    dtype = _dtype_of(model)
    rows = _numbers(names[0], x, dtype, exact=isinstance(getattr(model, "flow", model), IDF))
    if rows.ndim < 2 or len(rows) == 0:
        raise ValueError(f"{names[0]}: got shape {tuple(rows.shape)}, expected (N, ...) with at least one row")
    given = None if context is None else _numbers(names[2], context, dtype)
    if given is not None and given.ndim < 2:  # a flow takes a vector for the condition of all rows
        raise ValueError(f"{names[2]}: got shape {tuple(given.shape)}, expected (N, width); of one column, (N, 1)")
    targets = None if y is None else _targets(names[1], y, model, dtype)
    for name, part in ((names[1], targets), (names[2], given)):
        if part is not None and len(part) != len(rows):
            raise ValueError(f"{name}: got {len(part)} rows, expected {len(rows)}, as in {names[0]}")
    return Rows(rows, targets, given)


def check_shapes(model: nn.Module, parts: dict[str, Rows]) -> None:
    """Examples of the flow's shape, and conditions where it has them, in every part, by the name of its argument.

    Raises:
        ValueError: another shape, or a condition too many or too few.
    """
    flow = getattr(model, "flow", model)
    first = next(iter(parts.values()))
    shape = tuple(flow.shape) if isinstance(flow, Flow) else tuple(first.x.shape[1:])
    for name, rows in parts.items():
        if tuple(rows.x.shape[1:]) != shape:
            expected = ", ".join(map(str, ("N", *shape)))
            raise ValueError(f"{name}: got shape {tuple(rows.x.shape)}, expected ({expected})")
    if isinstance(flow, Flow) and bool(flow.context_width) != (first.context is not None):
        given = "none" if first.context is None else f"shape {tuple(first.context.shape)}"
        raise ValueError(f"context: got {given}, expected {'(N, width)' if flow.context_width else 'none'}")


def check_classes(model: nn.Module, rows: Rows, unlabelled: bool, name: str) -> None:
    """Labels of a classifier, all of them, before any is trained on.

    Args:
        model: that predicts them.
        rows: with targets, or without.
        unlabelled: whether -1 stands for a label that is not known.
        name: of the argument.

    Raises:
        ValueError: a label is no class of the model.
    """
    head = model if isinstance(model, SemiSupervisedVAE) else getattr(model, "head", None)
    if rows.y is None or not isinstance(head, (Classifier, SemiSupervisedVAE)):
        return
    bad = (rows.y >= head.classes) | (rows.y < (-1 if unlabelled else 0))
    if bool(bad.any()):
        row, last = int(bad.nonzero()[0, 0]), head.classes - 1
        known = ", or -1 (unlabelled)" if unlabelled else ""
        hint = "; objectives.SemiSupervised takes -1 (unlabelled)" if rows.y[row] == -1 else ""
        raise ValueError(f"{name}: got label {int(rows.y[row])} in row {row}, expected 0 to {last}{known}{hint}")


def split(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Training and validation part: a random ``share`` of the rows, one at least, is held out."""
    held = max(1, round(share * len(rows))) if share else 0
    if held >= len(rows):
        raise ValueError(f"validation: got {share}, which leaves none of {len(rows)} rows to train on; expected less")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.at(order[held:]), rows.at(order[:held])


def _dtype_of(model: nn.Module) -> torch.dtype:
    flow = getattr(model, "flow", model)
    base = getattr(flow, "base", None)
    if base is not None and isinstance(base.dtype, torch.dtype):
        return base.dtype
    return next((value.dtype for value in model.parameters()), torch.get_default_dtype())


def _array(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_quantized or value.layout is not torch.strided:
            raise TypeError(
                f"{name}: got {value.dtype} in layout {value.layout}, expected a dense tensor of real numbers"
            )
        return value.detach().cpu()
    if np.ma.is_masked(value):  # its values are still there, below the mask
        raise ValueError(f"{name}: got {int(np.ma.getmaskarray(value).sum())} masked values, expected none")
    try:
        array = np.asarray(value)  # tables of pandas and polars too
    except Exception as error:
        raise TypeError(f"{name}: got {short(value)}, expected an array or a tensor") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got an array of {array.dtype}, expected numbers")
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))  # FITS files have another order


def _numbers(name: str, value: Any, dtype: torch.dtype, exact: bool = False) -> Tensor:
    return _held(name, _array(name, value), dtype, exact)


def _held(name: str, given: Tensor, dtype: torch.dtype, exact: bool = False) -> Tensor:
    """``given`` in another dtype, as long as that keeps what tells its rows apart.

    Raises:
        ValueError: a value is not finite, or rounding is more than a hundredth of a column's standard deviation; with
            ``exact``, that a whole number is rounded at all.
    """
    held = _finite(name, given.to(dtype))
    whole = not given.is_floating_point()
    kept = given.dtype in (torch.bool, torch.uint8) if whole else torch.promote_types(given.dtype, dtype) == dtype
    if kept or dtype not in (torch.float32, torch.float64) or not given.numel():
        return held  # in half precision every number is rounded, as its user knows
    before = given.to(torch.int64 if whole and given.dtype != torch.uint64 else torch.float64).reshape(len(given), -1)
    moved = (before - held.to(before.dtype).view_as(before)).abs().double().amax(0)
    width = before.double().std(0, correction=0)
    bad = moved > 0 if exact and whole else (moved > _ROUNDING * width) & (width > 0)
    if bool(bad.any()):
        column = int(bad.nonzero()[0, 0])
        where = f"column {column} with " if given.ndim > 1 else ""
        raise ValueError(
            f"{name}: got {where}values near {before[0, column]:g} and a standard deviation of {width[column]:g}, "
            f"which {dtype} rounds by up to {moved[column]:g}; expected numbers about 0 (subtract the mean), or a "
            "model in float64"
        )
    return held


def _finite(name: str, values: Tensor) -> Tensor:
    bad = ~torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else ~torch.isfinite(values)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        what = "NaN" if bool(values[row].isnan().any()) else "infinity"
        raise ValueError(f"{name}: got {what} in row {row} and {int(bad.sum()) - 1} others, expected finite numbers")
    return values


def _targets(name: str, value: Any, model: nn.Module, dtype: torch.dtype) -> Tensor:
    head = getattr(model, "head", None)
    labels = isinstance(head, Classifier) or isinstance(model, SemiSupervisedVAE)
    if not labels and not isinstance(head, Regressor):
        raise TypeError(f"{name}: got targets, but {type(model).__name__} has no head that predicts any; leave it out")
    targets = _array(name, value)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise ValueError(f"{name}: got shape {tuple(targets.shape)}, expected (N,)")
    if not labels:
        return _held(name, targets, torch.promote_types(dtype, torch.float32))
    whole = _finite(name, targets.to(torch.float64))
    if not torch.equal(whole, whole.round()):
        raise TypeError(f"{name}: got numbers that are not whole, expected classes 0, 1, ...")
    return whole.to(torch.int64)
