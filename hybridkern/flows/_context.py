"""The condition of a conditional flow: its width, what embeds it, and its shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridkern import _tensors
from hybridkern._arguments import as_size, is_integer, short
from hybridkern._autocast import has_autocast


class Embedded(NamedTuple):
    """A context that has been checked and embedded already, ``(B, width)``."""

    value: Tensor


def width_of(context: object) -> int:
    """Width of what the layers of a flow see: ``context`` itself, or what an embedding returns.

    Raises:
        TypeError: neither an integer nor a module.
        ValueError: a negative width, or an embedding that does not say what it returns.
    """
    if is_integer(context):
        return as_size("context", context, 0)
    if not isinstance(context, nn.Module):
        raise TypeError(f"context: got {short(context)}, expected a width or an embedding nn.Module")
    widths = [getattr(module, "out_features", None) for module in (*list(context.modules())[1:], context)]
    known = [width for width in widths if is_integer(width)]
    if not known:
        raise ValueError(
            f"context: got an embedding ({type(context).__name__}) of unknown width, expected one with an attribute "
            "out_features, its own or that of its last layer"
        )
    return as_size("context.out_features", known[-1])


def seen(
    context: Tensor | Embedded | None,
    width: int,
    embedding: Callable[[Tensor], Tensor] | None,
    rows: int,
    dtype: torch.dtype,
) -> Tensor | None:
    """What the layers of a flow see of ``context``, ``(rows, width)``; ``None`` in a flow without one.

    Args:
        context: ``(rows, raw width)``, or ``(raw width,)`` for all rows.
        width: what the layers were built for, 0 for none.
        embedding: makes it from the raw context, or ``None``.
        rows: examples in the batch.
        dtype: of the flow's parameters.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: a context where none was declared, none where one was, or another shape.
    """
    if isinstance(context, Embedded):
        return context.value
    if not width:
        if context is not None:
            raise ValueError(f"context: got {_text(context)}, expected none: the flow was built without context")
        return None
    expected = f"({rows}, {width}) or ({width},)" if embedding is None else f"a batch of {rows} for the embedding"
    if context is None:
        raise ValueError(f"context: got None, expected {expected}: the flow was built with a context")
    if not isinstance(context, Tensor):
        raise TypeError(f"context: got {type(context).__name__}, expected a torch.Tensor")
    if context.ndim == 1:
        context = context[None]
    alone = context.shape[0] == 1 != rows
    if embedding is None:
        if context.ndim != 2 or context.shape[1] != width or not (alone or context.shape[0] == rows):
            raise ValueError(f"context: got shape {_tensors.shape_text(context.shape)}, expected {expected}")
        if context.dtype is not dtype and not (context.is_floating_point() and has_autocast(context.device)):
            raise TypeError(f"context: got dtype {context.dtype}, expected {dtype}, the dtype of the flow's parameters")
        value = context
    else:
        if not (alone or context.shape[0] == rows):
            raise ValueError(f"context: got shape {_tensors.shape_text(context.shape)}, expected {expected}")
        value = embedding(context)
        if not isinstance(value, Tensor) or value.shape != (context.shape[0], width):
            raise ValueError(f"context: its embedding gave {_text(value)}, expected {(context.shape[0], width)}")
    return value.expand(rows, -1) if alone else value


def _text(value: object) -> str:
    return f"shape {_tensors.shape_text(value.shape)}" if isinstance(value, Tensor) else short(value)
