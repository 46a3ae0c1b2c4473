"""Autocast on devices that know it, and on the meta device, which does not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which nothing on ``device`` is lowered."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def has_autocast(device: torch.device) -> bool:
    """Whether autocast is on for ``device``."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)
