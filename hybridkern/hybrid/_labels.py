"""Class labels as every head and objective takes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern._arguments import as_size
from hybridkern._tensors import shape_text
from hybridkern._values import can_look

# nll_loss silently gives 0 for its default, -100; this number no label can be
_IGNORE_NOTHING = torch.iinfo(torch.int64).min


UNLABELLED = -1
"""The label of a row whose class is unknown."""


def _check_range(y: Tensor, classes: int) -> None:
    low, high = (int(bound) for bound in torch.aminmax(y))
    if low >= 0 and high < classes:
        return
    if low == UNLABELLED:
        raise ValueError(
            f"y: got label -1 (unlabelled), expected 0 to {classes - 1} ({classes} classes): this objective learns "
            "from labelled examples only; objectives.SemiSupervised takes others too"
        )
    raise ValueError(f"y: got label {low if low < 0 else high}, expected 0 to {classes - 1} ({classes} classes)")


def _check_integers(y: Tensor, rows: int) -> None:
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype is torch.bool:
        found = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y: got {found}, expected a tensor of integer labels")
    if y.shape != (rows,):
        raise ValueError(f"y: got shape {shape_text(y.shape)}, expected {shape_text((rows,))}")


def _as_int64(y: Tensor) -> Tensor:
    """``y`` as int64; what 64 bits without a sign hold beyond 63 is the largest one, and so no class and not -1."""
    labels = y.long()  # torch finds no extremes of some unsigned integers
    return labels if y.dtype is not torch.uint64 else torch.where(labels < 0, torch.iinfo(torch.int64).max, labels)


def check_labels(y: Tensor, rows: int, classes: int) -> Tensor:
    """``y`` as int64 labels ``(rows,)``.

    Raises:
        TypeError: ``y`` is not an integer tensor.
        ValueError: another shape, or a label outside ``0 .. classes-1``; the range is looked at on a CPU only, not in
            compiled graphs, since looking at the labels would wait for them, and not under ``vmap``.
    """
    _check_integers(y, rows)
    y = _as_int64(y)
    if y.is_cpu and y.numel() and can_look():
        _check_range(y, classes)
    return y


def split_unlabelled(y: Tensor, rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Which rows have no label, ``(rows,)`` bool, and the labels ``(rows,)`` int64 with class 0 in their place.

    Raises:
        TypeError, ValueError: as :func:`check_labels`, but -1 is no error.
    """
    _check_integers(y, rows)
    y = _as_int64(y)
    unlabelled = y == UNLABELLED
    labels = torch.where(unlabelled, 0, y)
    return unlabelled, check_labels(labels, rows, classes)


def as_label(label: object, classes: int) -> int:
    """``label``, one of ``0 .. classes-1``, as a Python integer.

    Raises:
        TypeError: not one integer.
        ValueError: no such class; -1 (unlabelled) is none either.
    """
    expected = f"0 to {classes - 1} ({classes} classes)"
    number = as_size("label", label, 0, expected=expected)
    if number >= classes:
        raise ValueError(f"label: got {number}, expected {expected}")
    return number


def log_prob_of_labels(log_probs: Tensor, y: Tensor) -> Tensor:
    """The entry of each row that its label points at.

    Args:
        log_probs: ``(B, classes)``, in nats.
        y: labels ``(B,)``, any integer dtype.

    Returns:
        ``(B,)``.

    Raises:
        TypeError: ``y`` is not an integer tensor.
        ValueError: another shape, or a label outside ``0 .. classes-1``. On a GPU the range is left to the kernel's
            own assertion, and in a compiled graph to the operator's, since looking at the labels would wait for them.
    """
    labels = check_labels(y, *log_probs.shape)
    return -F.nll_loss(log_probs, labels, reduction="none", ignore_index=_IGNORE_NOTHING)
