"""A coupling network of which the input alone is kept, and which runs again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybridkern._values import version_of
from hybridkern.integrations._reads import only_reads

_INITIALIZED = ("data_dep_init_done", "initialized")
_SHARDED = "_is_fsdp_managed_module"  # FSDP puts the parameters of such a module in place for each run


def recomputed(network: Callable[..., Tensor], x: Tensor, *context: Tensor | None) -> Tensor:
    """``network(x, *context)``, of which ``x`` alone is kept."""
    if _will_initialize(network):  # a second run would not be the first one again
        return network(x, *context)
    if only_reads(network):
        return _run_twice(network, network, x, *context)

    def on_copy(start: Tensor, *given: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = start.clone()
        return network(seen, *given), seen

    out, seen = _run_twice(network, on_copy, x.clone(), *context)
    if seen._version:  # the network wrote into its input, and who called it may count on that
        x.copy_(seen)
    return out


def _run_twice(network: object, run: Callable[..., Any], *given: Tensor | None) -> Any:
    """``run(*given)``, which calls ``network``, now and again in the backward pass."""
    return checkpoint(run, *given, use_reentrant=False, context_fn=partial(_first_and_second_run, network))


def _will_initialize(network: object) -> bool:
    """Whether it holds an actnorm of a library, which sets itself from the first batch that it sees."""
    if not isinstance(network, nn.Module):
        return False
    flags = (getattr(module, name, True) for module in network.modules() for name in _INITIALIZED)
    return not all(flags) or any(getattr(module, "init_on_next_batch", False) for module in network.modules())


def _first_and_second_run(network: object) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), (_AsBefore(network) if isinstance(network, nn.Module) else nullcontext())


class _AsBefore:
    """Inside, modules have the parameters, buffers and modes of the first run, before which this is made. They write
    into copies of the buffers: running statistics count a batch once. Parameters that were frozen in the first run are
    frozen. So it is the first run again where parameters were exchanged since, as ``torch.func.functional_call`` does.

    Entered again for every backward pass through the same graph. That the input is what it was, PyTorch sees to.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self.modules = network, list(network.modules())
        self.start = [
            (module, name, None if buffer is None else buffer.clone())
            for module in self.modules
            for name, buffer in module._buffers.items()
        ]
        self.now: list[Tensor | None] = []
        self.modes = [(module, module.training) for module in self.modules]
        self.frozen = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        every = [
            (path, module, name, parameter)
            for path, module in network.named_modules()
            for name, parameter in module._parameters.items()
            if not getattr(module, _SHARDED, False)
        ]
        self.params = [(module, name, parameter) for _, module, name, parameter in every]
        self.read = [
            (f"{path}.{name}" if path else name, parameter, version_of(parameter))
            for path, _, name, parameter in every
            if parameter is not None
        ]

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
        params = [(module, name, module._parameters[name]) for module, name, _ in self.params]
        for module, name, held in self.params:
            module._parameters[name] = held
        self.params = params

    def _check(self) -> None:
        """Whether a second run can be the first one again."""
        for where, value, version in self.read:
            if version_of(value) != version:
                raise RuntimeError(
                    f"{where}: got values that were changed in place after the forward pass, expected those of the "
                    "forward pass, which memory='recompute' runs again"
                )
        known = all(name in module._parameters for module, name, _ in self.params)
        if not known or list(self.network.modules()) != self.modules:
            raise RuntimeError(
                f"{type(self.network).__name__}: got other modules or parameters than in the forward pass, expected "
                "the same, which memory='recompute' runs again"
            )

    def __enter__(self) -> None:
        self._check()
        self._exchange()
        self.now = [module._buffers[name] for module, name, _ in self.start]
        for module, name, start in self.start:
            module._buffers[name] = None if start is None else start.clone()

    def __exit__(self, *_: object) -> None:
        for (module, name, _start), buffer in zip(self.start, self.now, strict=True):
            module._buffers[name] = buffer
        self._exchange()
