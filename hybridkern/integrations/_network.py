"""How an accelerated layer calls its coupling network: memory format, precision, fused operator, recomputation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybridkern._calls import plain_weights
from hybridkern._values import version_of
from hybridkern.integrations._layer import Options, has_hooks
from hybridkern.integrations._reads import only_reads
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
_INITIALIZED = ("data_dep_init_done", "initialized")
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
        return _recomputed(network, x, *context) if recompute else network(x, *context)


def _recomputed(network: Callable[..., Tensor], x: Tensor, *context: Tensor | None) -> Tensor:
    """``network(x, *context)``, of which ``x`` alone is kept."""
    if _will_initialize(network):  # a second run would not be the first one again
        return network(x, *context)
    run = partial(checkpoint, use_reentrant=False, context_fn=partial(_first_and_second_run, network))
    if only_reads(network):
        return run(network, x, *context)

    def on_copy(start: Tensor, *given: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = start.clone()
        return network(seen, *given), seen

    out, seen = run(on_copy, x.clone(), *context)
    if seen._version:  # the network wrote into its input, and who called it may count on that
        x.copy_(seen)
    return out


def _will_initialize(network: object) -> bool:
    """Whether it holds an actnorm of a library, which sets itself from the first batch that it sees."""
    if not isinstance(network, nn.Module):
        return False
    flags = (getattr(module, name, True) for module in network.modules() for name in _INITIALIZED)
    return not all(flags) or any(getattr(module, "init_on_next_batch", False) for module in network.modules())


def _gains_from_channels_last(network: nn.Module, x: Tensor, options: Options) -> bool:
    many = x.shape[0] * x.shape[2] * x.shape[3] >= _PIXELS
    return (options.networks or many) and only_reads(network) and keeps_strides(network)


def _precision(x: Tensor, options: Options) -> AbstractContextManager[Any]:
    if options.precision == "bf16":
        return torch.autocast(x.device.type, dtype=torch.bfloat16)
    return nullcontext()


def _first_and_second_run(network: object) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), (_AsBefore(network) if isinstance(network, nn.Module) else nullcontext())


class _AsBefore:
    """Inside, modules have the buffers and modes of the first run, before which this is made. They write into copies:
    running statistics count a batch once. Parameters that were frozen in the first run are frozen.

    Entered again for every backward pass through the same graph.
    """

    def __init__(self, network: nn.Module) -> None:
        self.start = [
            (module, name, None if buffer is None else buffer.clone())
            for module in network.modules()
            for name, buffer in module._buffers.items()
        ]
        self.now: list[Tensor | None] = []
        self.modes = [(module, module.training) for module in network.modules()]
        self.frozen = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        self.constants = [(name, p, version_of(p)) for name, p in network.named_parameters() if not p.requires_grad]

    def _exchange(self) -> None:
        now = [(parameter, parameter.requires_grad) for parameter, _ in self.frozen]
        for parameter, wanted in self.frozen:
            if parameter.requires_grad is not wanted:
                parameter.requires_grad_(wanted)
        self.frozen = now
        modes = [(module, module.training) for module, _ in self.modes]
        for module, training in self.modes:
            module.training = training
        self.modes = modes

    def __enter__(self) -> None:
        for where, parameter, version in self.constants:
            if version_of(parameter) != version:
                raise RuntimeError(
                    f"{where}: got values that were changed in place after the forward pass, expected those of the "
                    "forward pass, which memory='recompute' runs again"
                )
        self._exchange()
        self.now = [module._buffers[name] for module, name, _ in self.start]
        for module, name, start in self.start:
            module._buffers[name] = None if start is None else start.clone()

    def __exit__(self, *_: object) -> None:
        for (module, name, _start), buffer in zip(self.start, self.now, strict=True):
            module._buffers[name] = buffer
        self._exchange()


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
