"""When a module must be called, and when its weights may be read instead.

A fused operator takes weights, and the modules that hold them are not called. That gives the same numbers only where
a call would do nothing else: hooks (of one module or of all), reparametrizations, pruning, adapters, subclasses and
replaced methods all live in the call.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (nn.Parameter, Tensor)


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether someone watches a module, or all modules: then it has to be called, not merely computed."""
    if (  # by name, not in a loop: many a step asks this
        _torch_module._global_forward_hooks
        or _torch_module._global_forward_pre_hooks
        or _torch_module._global_backward_hooks
        or _torch_module._global_backward_pre_hooks
    ):
        return True
    return any(getattr(module, name) for module in modules for name in _HOOKS)


def is_watched(modules: Iterable[nn.Module]) -> bool:
    """:func:`has_hooks`, or whether someone gave one of them a ``forward`` of its own."""
    watched = list(modules)
    return has_hooks(watched) or any("forward" in module.__dict__ for module in watched)


def is_plain_conv(module: nn.Module, size: int) -> bool:
    """Whether calling ``module`` is a convolution by ``size x size`` weights, as the fused network computes it.

    That is an ``nn.Conv2d`` itself, with the stride, padding and groups that it starts with, a bias, weights that are
    its own parameters, and no hooks. Hooks on all modules are left to :func:`has_hooks`.
    """
    if type(module) is not nn.Conv2d:
        return False
    # attributes straight from the instance: a Glow step asks this of every convolution
    own, params = module.__dict__, module._parameters
    return (
        type(params.get("weight")) in _PLAIN
        and type(params.get("bias")) in _PLAIN
        and own["kernel_size"] == (size, size)
        and own["padding"] == (size // 2, size // 2)
        and own["stride"] == own["dilation"] == (1, 1)
        and own["groups"] == 1
        and own["padding_mode"] == "zeros"
        and "forward" not in own
        and "_conv_forward" not in own
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"])
        and not (own["_backward_hooks"] or own["_backward_pre_hooks"])
    )


def plain_weights(first: nn.Module, second: nn.Module, third: nn.Module) -> tuple[Tensor, ...] | None:
    """Weights and biases of 3x3, 1x1 and 3x3 convolutions that need not be called; ``None`` where one has to be.

    :func:`hybridkern.ops.coupling_network` takes them in this order.
    """
    if not (is_plain_conv(first, 3) and is_plain_conv(second, 1) and is_plain_conv(third, 3)) or has_hooks(()):
        return None
    own = [
        params for conv in (first, second, third) for params in (conv._parameters["weight"], conv._parameters["bias"])
    ]
    weights = tuple(params for params in own if params is not None)
    hidden = weights[0].shape[0]
    return weights if weights[2].shape[:2] == (hidden, hidden) and weights[4].shape[1] == hidden else None
