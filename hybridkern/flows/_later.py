"""Questions to tensors that nobody waits for, and warnings given once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hybridkern._finite import is_plain, readable


def capturing(device: torch.device) -> bool:
    """Whether work on ``device`` is being recorded for a CUDA graph, when nothing may be read."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


class Later:
    """The value of a truth value ``flag`` ``()``, on any device; asked for at once, looked at when it has come."""

    def __init__(self, flag: Tensor) -> None:
        self._host, self._arrived = _to_host(flag)

    def answer(self) -> bool | None:
        """The value, or ``None`` while it is on its way."""
        return bool(self._host) if self._arrived() else None


def _to_host(flag: Tensor) -> tuple[Tensor, Callable[[], bool]]:
    """A copy of ``flag`` on the host, and whether it has been written."""
    if flag.is_cpu:
        return flag.clone(), lambda: True
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.copy_(flag.detach(), non_blocking=True)
    event = torch.Event(flag.device)
    event.record(torch.accelerator.current_stream(flag.device))  # that of the copy, whatever device is current
    return host, event.query


_told: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
_asked: WeakKeyDictionary[nn.Module, Later] = WeakKeyDictionary()

NOT_FINITE = (
    "a sample or an inverse is not finite: the latents lie far outside of what the flow was trained on, or its scales "
    "have run away. Train it with a form that bounds the scale on both sides (such as 'realnvp'), with a lower "
    "learning rate or clipped gradients, and on inputs of unit width; flows.check_finite names the layer at fault"
)


def warn_once(module: nn.Module, what: str) -> None:
    """Warns that ``what`` holds of ``module``, which the warning names; each once a module."""
    told = _told.setdefault(module, set())
    if what not in told:
        told.add(what)
        warnings.warn(f"{type(module).__name__}: {what}", RuntimeWarning, stacklevel=4)


def watch_finite(module: nn.Module, x: Tensor) -> None:
    """Warns once if values that an inverse of ``module`` gave are not finite; on a device at a later call.

    In compiled graphs, on meta tensors and under ``torch.func`` nothing is looked at.
    """
    if torch.compiler.is_compiling() or NOT_FINITE in _told.get(module, ()):
        return
    if readable(x):
        # a sum reads once and writes nothing; it may be infinite where no value is
        if not x.detach().sum().isfinite() and not x.detach().isfinite().all():
            warn_once(module, NOT_FINITE)
    elif is_plain(x) and not x.is_cpu and not capturing(x.device):
        _watch_device(module, x)


def _watch_device(module: nn.Module, x: Tensor) -> None:
    asked = _asked.get(module)
    answer = None if asked is None else asked.answer()
    if answer:
        warn_once(module, NOT_FINITE)
    if asked is None or answer is not None:
        _asked[module] = Later(~x.detach().isfinite().all())
