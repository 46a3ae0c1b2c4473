"""Class labels as every head and objective takes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern.ops._check import shape_text

# nll_loss silently gives 0 for its default, -100; this number no label can be
_IGNORE_NOTHING = torch.iinfo(torch.int64).min


def _check_range(y: Tensor, classes: int) -> None:
    low, high = (int(bound) for bound in torch.aminmax(y))
    if low >= 0 and high < classes:
        return
    if low == -1:
        raise ValueError(
            f"y: got label -1 (unlabelled), expected 0 to {classes - 1} ({classes} classes): this objective learns "
            "from labelled examples only"
        )
    raise ValueError(f"y: got label {low if low < 0 else high}, expected 0 to {classes - 1} ({classes} classes)")


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
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype is torch.bool:
        found = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y: got {found}, expected a tensor of integer labels")
    if y.shape != log_probs.shape[:1]:
        raise ValueError(f"y: got shape {shape_text(y.shape)}, expected {shape_text(log_probs.shape[:1])}")
    if y.is_cpu and y.numel() and not torch.compiler.is_compiling():
        _check_range(y, log_probs.shape[1])
    return -F.nll_loss(log_probs, y.long(), reduction="none", ignore_index=_IGNORE_NOTHING)
