"""Modules as they were when their parts were looked at, and whether a call may still go past them."""

from __future__ import annotations

from typing import Any

from torch import nn

from hybridkern._calls import has_hooks


class Unwatched:
    """A network whose modules need not be called, as long as :meth:`holds`.

    Attributes:
        network: it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._modules = tuple((module, type(module), dict(module._modules)) for module in network.modules())

    def holds(self, network: object) -> bool:
        """Whether it is this network, of the same modules and classes, and nobody watches any of them.

        Every call asks: what is read is what a call would look at.
        """
        if network is not self.network or has_hooks(()):
            return False
        for module, kind, children in self._modules:
            own: Any = module.__dict__
            if (
                type(module) is not kind
                or own["_modules"] != children
                or own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
                or "forward" in own
            ):
                return False
        return True
