"""A loss under float16 autocast whose gradient nobody scales: said once per model."""

from __future__ import annotations

from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from hybridkern._finite import is_plain
from hybridkern.flows._later import Later, capturing, warn_once

NOT_SCALED = (
    "the gradient of a loss under float16 autocast was not scaled: gradients of a mean over many examples and "
    "dimensions round to 0 in float16. Scale the loss by torch.amp.GradScaler, or take bfloat16, which needs none"
)
_asked: WeakKeyDictionary[nn.Module, Later] = WeakKeyDictionary()


def watch_scale(module: nn.Module, loss: Tensor) -> None:
    """Looks at the gradient that ``loss`` ``()`` is given; on a device without waiting, and so at a later one."""
    kind = loss.device.type
    if torch.compiler.is_compiling() or not (loss.requires_grad and is_plain(loss)):
        return
    if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) is not torch.float16:
        return
    owner = ref(module)

    def look(grad: Tensor) -> None:
        model = owner()
        if model is not None and is_plain(grad) and not capturing(grad.device):
            _look(model, grad)

    loss.register_hook(look)


def _look(module: nn.Module, grad: Tensor) -> None:
    asked = _asked.get(module)
    if asked is None:
        asked = _asked[module] = Later((grad.detach().abs() <= 1).all())
    answer = asked.answer()
    if answer:
        warn_once(module, NOT_SCALED)
    if answer is not None:
        del _asked[module]
