"""When a module must be called, and when its weights may be read instead.

A fused operator takes weights, and the modules that hold them are not called. That gives the same numbers only where
a call would do nothing else: hooks (of one module or of all), reparametrizations, pruning, adapters, subclasses and
replaced methods all live in the call.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_METHODS = ("forward", "_conv_forward")


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether someone watches a module, or all modules: then it has to be called, not merely computed."""
    if any(getattr(_torch_module, f"_global{name}") for name in _HOOKS):
        return True
    return any(getattr(module, name) for module in modules for name in _HOOKS)


def is_plain_conv(module: nn.Module, size: int) -> bool:
    """Whether calling ``module`` is a convolution by ``size x size`` weights, as the fused network computes it.

    That is an ``nn.Conv2d`` itself, with the stride, padding and groups that it starts with, a bias, weights that are
    its own parameters, and no hooks. Hooks on all modules are left to :func:`has_hooks`.
    """
    if type(module) is not nn.Conv2d:
        return False
    own = module._parameters
    return (
        type(own.get("weight")) in (nn.Parameter, Tensor)
        and type(own.get("bias")) in (nn.Parameter, Tensor)
        and module.kernel_size == (size, size)
        and module.padding == (size // 2, size // 2)
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not any(name in module.__dict__ for name in _METHODS)
        and not any(getattr(module, name) for name in _HOOKS)
    )


def plain_weights(first: nn.Module, second: nn.Module, third: nn.Module) -> tuple[Tensor, ...] | None:
    """Weights and biases of 3x3, 1x1 and 3x3 convolutions that need not be called; ``None`` where one has to be.

    :func:`hybridkern.ops.coupling_network` takes them in this order.
    """
    convs = (first, second, third)
    if not all(map(is_plain_conv, convs, (3, 1, 3))) or has_hooks(()):
        return None
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(third, nn.Conv2d)
    if not first.out_channels == second.in_channels == second.out_channels == third.in_channels:
        return None
    weights = (first.weight, first.bias, second.weight, second.bias, third.weight, third.bias)
    assert all(isinstance(weight, torch.Tensor) for weight in weights)
    return weights  # type: ignore[return-value]
