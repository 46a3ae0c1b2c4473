"""Under which of PyTorch's transforms the code runs: what may be looked at, and what has a rule."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor

_functorch = torch._C._functorch


def _transforms() -> int:
    return int(_functorch.get_dynamic_layer_stack_depth())


# What torch.compiler.assume_constant_result does, without its import of the compiler: Dynamo enters the transforms that
# it traces, so that the answer while it traces is that of the graph.
_transforms._dynamo_marked_constant = True  # type: ignore[attr-defined]
# the depth, and not the stack itself: Dynamo makes an object of no stack, which is not None
if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13):  # whose Dynamo knows this function: a call less
    _transforms = _functorch.get_dynamic_layer_stack_depth


def transformed() -> bool:
    """Whether forward mode is on or a transform of ``torch.func`` runs: plain operators have rules for both."""
    return forward_mode._current_level >= 0 or _transforms() > 0


def unwrapped(x: Tensor) -> Tensor:
    """The tensor that transforms of ``torch.func`` have wrapped; one of more dimensions under ``vmap``."""
    while _functorch.is_functorch_wrapped_tensor(x):
        x = _functorch.get_unwrapped(x)
    return x


def has_saved_tensor_hooks() -> bool:
    """Whether hooks on what autograd saves are active, such as those of activation checkpoints."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def can_look() -> bool:
    """Whether Python may branch on the values of a tensor: not in compiled graphs and not inside ``vmap``.

    Checks of values are left out there; what would have been an error passes on as NaN.
    """
    if torch.compiler.is_compiling():
        return False
    stack = _functorch.get_interpreter_stack() or []
    return all(level.key() != _functorch.TransformType.Vmap for level in stack)


def refuse_vmap(what: str, why: str) -> None:
    """Says that a call cannot be batched, and what to do instead.

    Raises:
        RuntimeError: inside ``vmap``.
    """
    if not torch.compiler.is_compiling() and not can_look():
        raise RuntimeError(
            f"{what}: cannot run under torch.func.vmap, since {why}; expected one call a data set, outside"
        )


def version_of(x: Tensor) -> int:
    """How often ``x`` was written into, as autograd counts it; of tensors of inference mode that is not known."""
    return 0 if x.is_inference() else x._version
