"""How an accelerated layer calls its coupling network: memory format, precision, fused operator, recomputation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._calls import plain_weights
from hybridkern.integrations._layer import Options, has_hooks
from hybridkern.integrations._reads import only_reads
from hybridkern.integrations._recompute import recomputed
from hybridkern.ops.coupling_network.operator import coupling_network, has_fused_network

_PIXELS = 1024  # for fewer the other order of numbers costs what it gains
# Modules that compute the same whatever the strides of an image; any other may, say, view it.
_KEEP_STRIDES = {
    nn.Sequential,
    nn.ModuleList,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
}
_KEEP_STRIDES_BY_NAME = {
    "normflows.nets.cnn.ConvNet2d",
    "nflows.nn.nets.resnet.ConvResidualNet",
    "nflows.nn.nets.resnet.ConvResidualBlock",
}


def run_network(network: Callable[..., Tensor], x: Tensor, *context: Tensor | None, options: Options) -> Tensor:
    """``network(x, *context)``, faster or in less memory where ``options`` and the network allow it.

    Args:
        network: a coupling network: a module, or a function.
        x: its input, ``(B, C, *S)``.
        context: further arguments.
        options: what may change.
    """
    images = x.ndim == 4
    recompute = options.memory == "recompute" and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    with _precision(x, options):
        weights = fused_weights(network) if images and options.networks and not context else None
        if weights is not None and has_fused_network(x) and weights[0].dtype is x.dtype:
            return coupling_network(x, *weights, save_hidden=not recompute)
        if images and isinstance(network, nn.Module) and _gains_from_channels_last(network, x, options):
            x = x.contiguous(memory_format=torch.channels_last)
        return recomputed(network, x, *context) if recompute else network(x, *context)


def _gains_from_channels_last(network: nn.Module, x: Tensor, options: Options) -> bool:
    many = x.shape[0] * x.shape[2] * x.shape[3] >= _PIXELS
    return (options.networks or many) and only_reads(network) and keeps_strides(network)


def _precision(x: Tensor, options: Options) -> AbstractContextManager[Any]:
    if options.precision == "bf16":
        return torch.autocast(x.device.type, dtype=torch.bfloat16)
    return nullcontext()


def keeps_strides(network: nn.Module) -> bool:
    """Whether ``network`` is made of modules that give the same numbers for an image in channels_last."""
    return all(
        (type(module) in _KEEP_STRIDES or _full_name(module) in _KEEP_STRIDES_BY_NAME) and not _draws(module)
        for module in network.modules()
    )


def _draws(module: nn.Module) -> bool:
    """Whether it drops units: the same random numbers would fall on others in another order of memory."""
    return isinstance(module, (nn.Dropout, nn.Dropout2d)) and module.training and module.p > 0


def _full_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def fused_weights(network: object) -> tuple[Tensor, ...] | None:
    """Weights and biases where ``network`` is 3x3 - ReLU - 1x1 - ReLU - 3x3, as ``coupling_network`` takes them."""
    chain: Any = network
    if isinstance(network, nn.Module) and _full_name(network) == "normflows.nets.cnn.ConvNet2d":
        chain = network.net if not has_hooks((network,)) else None
    if type(chain) is not nn.Sequential or len(chain) != 5 or has_hooks((chain, *chain)):
        return None
    if not (_is_relu(chain[1]) and _is_relu(chain[3])):
        return None
    return plain_weights(chain[0], chain[2], chain[4])


def _is_relu(module: nn.Module) -> bool:
    return type(module) is nn.ReLU or (type(module) is nn.LeakyReLU and module.negative_slope == 0)


def network_reason(network: nn.Module, options: Options) -> str:
    """How :func:`run_network` calls it on images, in words for the report."""
    words = []
    if options.networks and fused_weights(network) is not None:
        words.append("one operator for images")
    elif keeps_strides(network):
        words.append("channels_last for images")
    if options.precision:
        words.append(options.precision)
    if options.memory:
        words.append("computed again in backward")
    return ", ".join(words) or "called as it is"
