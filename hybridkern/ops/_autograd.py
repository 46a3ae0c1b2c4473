"""Derivatives of the operators: the first by their kernels, all others by way of the reference formulas.

A :class:`Gradient` says how one call is differentiated. Its first derivative in reverse mode is one backward kernel.
Where more is asked for, the plain PyTorch formulas take over, which autograd differentiates as often as one likes:

- under forward mode and inside a transform of ``torch.func`` the whole call runs on them;
- where the backward pass is itself recorded (``create_graph=True``), the gradient is computed by them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from hybridkern._extension import extension, nodes
from hybridkern._values import transformed
from hybridkern.ops import _gpu
from hybridkern.ops._backends import state
from hybridkern.ops._operator import OPERATORS, Option, Outputs, options_of

Tensors = Sequence[Tensor | None]
_NATIVE: dict[str, Gradient] = {}  # by the name of the C++ node
_native = True


@contextmanager
def python_functions() -> Iterator[None]:
    """For tests: record every operator by its Python Function inside the block."""
    global _native
    before, _native = _native, False
    try:
        yield
    finally:
        _native = before


class Gradient(NamedTuple):
    """How a call ``forward(backend, *tensors, *options)`` is differentiated.

    Attributes:
        name: of the node in the graph, as users see it in ``grad_fn``.
        tensors: how many arguments are tensors (or ``None``); the options follow them. Negative: all but so many are.
        forward: runs the kernels.
        saves: from the arguments and the outputs to the tensors that are kept.
        backward: ``(backend, saved, grads, options, needs)`` to the gradients of the tensors, by the kernels. A
            gradient of an output is ``None`` where the loss does not depend on it.
        reference: ``(*tensors, *options)`` to the outputs, in formulas that autograd differentiates.
        inputs: ``(saved, grads, options)`` to the tensors for ``reference``, as differentiable functions of what was
            saved. One in which the outputs are linear need not have been saved: zeros stand for it.
        returns: how many outputs of ``forward`` the call returns, if not all: the others are there to be saved.
    """

    name: str
    tensors: int
    forward: Callable[..., Outputs]
    saves: Callable[[Sequence[Any], Any], Tensors]
    backward: Callable[[str, Tensors, Tensors, Sequence[Any], Sequence[bool]], Tensors]
    reference: Callable[..., Outputs]
    inputs: Callable[[Tensors, Tensors, Sequence[Any]], Tensors]
    returns: int = 0


def recorded(gradient: Gradient, node: str = "", options: Sequence[Option] = ()) -> Callable[..., Any]:
    """The function ``(backend, *arguments)`` that runs ``gradient.forward`` and records it for the backward pass.

    A Python Function costs about 20 us, forward and backward, in calls alone; the C++ node of that name, where it was
    built for this torch, a third of it. The node hands back calls that it does not serve (tensor subclasses, other
    devices, dispatch modes), and ``torch.compile`` traces the Python one.

    Args:
        gradient: how the call is differentiated.
        node: name of the C++ node; empty: none.
        options: types of the options, which the C++ node hands over as numbers.
    """
    tensors = gradient.tensors
    apply: Callable[..., Any] = _function(gradient).apply
    floats = any(kind in (float, tuple) for kind, _ in options)
    native = getattr(nodes.module, node, None) if node else None
    if native is None:
        python = _called(apply, tensors)
        return _saying_so(python) if node and extension.module is not None else python
    _NATIVE[node] = gradient
    _OPTIONS[node] = tuple(options)

    def run(backend: str, *args: Any) -> Any:
        if floats and torch.compiler.is_compiling():
            return apply(backend, *args[:tensors], *map(_constant, args[tensors:]))
        if _native and (floats or not torch.compiler.is_compiling()) and _is_registered(backend, node):
            out = native(*args)
            if out is not None:
                return out
        # as _called does: here, not by another call
        return (
            _given_over(apply, tensors, backend, args) if has_torch_function(args[:tensors]) else apply(backend, *args)
        )

    return run


def _called(apply: Callable[..., Any], tensors: int) -> Callable[..., Any]:
    """The Python Function, called by ``torch.compile`` with floats that are constants of the graph.

    Under ``dynamic=True`` a float that a layer holds is a symbol to Dynamo, which it cannot hand to two Functions.
    """

    def run(backend: str, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return apply(backend, *args[:tensors], *map(_constant, args[tensors:]))
        return (
            _given_over(apply, tensors, backend, args) if has_torch_function(args[:tensors]) else apply(backend, *args)
        )

    return run


def _given_over(apply: Callable[..., Any], tensors: int, backend: str, args: tuple[Any, ...]) -> Any:
    """What the ``__torch_function__`` of a tensor's class makes of the call, as of PyTorch's own functions.

    Converted inside, its results would be views that may not be written into.
    """
    given = [value for value in args[:tensors] if value is not None]
    return handle_torch_function(apply, given, backend, *args)


def _constant(option: Any) -> Any:
    if isinstance(option, (list, tuple)):
        return [_constant(value) for value in option]
    # a symbol that becomes a key is the number from then on, and a guard of the graph
    return next(iter({option: None})) if isinstance(option, float) else option


def _is_registered(backend: str, node: str) -> bool:
    """Whether the backend's kernel is the one that the dispatcher, and so a C++ node, calls."""
    return backend != "triton" or node not in _gpu.state.native


_OPTIONS: dict[str, tuple[Option, ...]] = {}
_told: list[str] = []


def _saying_so(python: Callable[..., Any]) -> Callable[..., Any]:
    """The Python Function, which says once per process why it stands in for the C++ node."""

    def run(backend: str, *args: Any) -> Any:
        if not _told and backend == "cpp" and not torch.compiler.is_compiling():
            _told.append(nodes.reason)
            warnings.warn(
                f"hybridkern runs without its C++ autograd nodes, and slower on small inputs: {nodes.reason}. "
                "Installing it anew builds them for the torch that is there (python -m hybridkern.report says more)",
                RuntimeWarning,
                stacklevel=5,
            )
        return python(backend, *args)

    return run


def quick(node: str) -> Callable[..., Any]:
    """The call of a C++ node as most calls are: by the automatic choice, on plain tensors, gradients or none.

    The function of the node's arguments gives the outputs, or None where the call is another one or its arguments do
    not fit the kernel's contract: then the public function checks them, chooses and says what is wrong.
    """
    native = getattr(nodes.module, node, None)

    def call(*args: Any) -> Any:
        if state.unasked and _native and native is not None and not torch.compiler.is_compiling():
            return native(*args)
        return None

    return call


def _function(gradient: Gradient) -> type[torch.autograd.Function]:
    count = gradient.tensors

    def forward(ctx: Any, backend: str, *args: Any) -> Outputs:
        outputs = gradient.forward(backend, *args)
        kept = args if torch.compiler.is_compiling() else (*map(_as_given, args[:count]), *args[count:])
        ctx.save_for_backward(*gradient.saves(kept, outputs))
        ctx.backend, ctx.options = backend, args[count:]
        ctx.set_materialize_grads(False)
        return outputs[0] if gradient.returns == 1 else outputs

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, needs = ctx.saved_tensors, ctx.needs_input_grad[1 : len(ctx.needs_input_grad) - len(ctx.options)]
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        if by_formulas():
            found: Tensors = reference_gradient(gradient, saved, grads, ctx.options)
        else:
            found = gradient.backward(ctx.backend, saved, grads, ctx.options, needs)
        own = [grad if need else None for grad, need in zip(found, needs, strict=True)]
        return None, *own, *(None,) * len(ctx.options)

    # named as it is made: the name of the node comes from here
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(gradient.name, (torch.autograd.Function,), methods)


def _as_given(value: Tensor | None) -> Tensor | None:
    """A constant of this call stays one in its derivatives, also if it is made to require a gradient afterwards."""
    return value if value is None or value.requires_grad else value.detach()


def needs_grad(*values: Tensor | None) -> bool:
    """Whether a call on these tensors is to be recorded for the backward pass."""
    for value in values:
        if value is not None and value.requires_grad:
            return torch.is_grad_enabled()
    return False


def all_saved(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> Tensors:
    """``Gradient.inputs`` where what was saved are the tensors of the call, in order."""
    return saved


def by_formulas() -> bool:
    """Whether a backward pass must be one that can be differentiated, or batched, itself."""
    if torch.compiler.is_compiling():
        return False  # AOTAutograd refuses second derivatives itself, with a message of its own
    return torch.is_grad_enabled() or transformed()


def reference_gradient(
    gradient: Gradient,
    saved: Tensors,
    grads: Tensors,
    options: Sequence[Any],
    inputs: Callable[[Tensors, Tensors, Sequence[Any]], Tensors] | None = None,
) -> list[Tensor | None]:
    """Gradients of the tensors of a call by the reference formulas; they can be differentiated in turn.

    ``inputs`` takes the place of ``gradient.inputs``.
    """
    given = (inputs or gradient.inputs)(saved, grads, options)
    wanted = [value for value in given if value is not None]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        by_place = iter(values)
        outputs = gradient.reference(*(None if value is None else next(by_place) for value in given), *options)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    by_leaf = iter(pulled_back(run, wanted, grads))
    return [None if value is None else next(by_leaf) for value in given]


_Formulas = Callable[..., tuple[Tensor, ...]]


def pulled_back(run: _Formulas, given: Sequence[Tensor], grads: Tensors) -> Tensors:
    """Gradients of ``given`` from those of the outputs ``run(*given)``, such that they can be differentiated in turn.

    A gradient of an output is ``None`` where nothing depends on it, and one of ``given`` likewise.
    """
    return (_pulled if transformed() else _differentiated)(run, given, grads)


def _differentiated(run: _Formulas, given: Sequence[Tensor], grads: Tensors) -> Tensors:
    """By autograd, which records it."""
    with torch.enable_grad():
        # an alias each: where one argument was computed from another, its gradient must not run into that one
        leaves = [v.view_as(v) if v.requires_grad else _leaf(v) for v in given]
        outputs, incoming = [], []
        for out, grad in zip(run(*leaves), grads, strict=True):
            if grad is not None and out.requires_grad:
                outputs.append(out)
                incoming.append(grad)
        if not outputs:
            return [None] * len(leaves)
        return torch.autograd.grad(outputs, leaves, incoming, create_graph=True, allow_unused=True)


def _leaf(value: Tensor) -> Tensor:
    # a tensor made under inference_mode cannot require a gradient; its copy can
    return (value.clone() if value.is_inference() else value.detach()).requires_grad_()


def _pulled(run: _Formulas, given: Sequence[Tensor], grads: Tensors) -> Tensors:
    """By ``torch.func``, for tensors that carry batches or tangents: leaves cannot be made of those."""
    pair: Any = torch.func.vjp(run, *given)  # of three in its annotation, which has an option for it
    outputs, pull = pair
    incoming = [torch.zeros_like(out) if grad is None else grad for out, grad in zip(outputs, grads, strict=True)]
    found: Tensors = pull(tuple(grad.to(out.dtype) for grad, out in zip(incoming, outputs, strict=True)))
    return found


def _native_gradient(node: str, saved: Tensors, grads: Tensors, numbers: Sequence[float]) -> list[Tensor | None]:
    """What a C++ node calls where its kernel does not do: the same rule, by the node's name."""
    return reference_gradient(_NATIVE[node], saved, grads, options_of(_OPTIONS[node], numbers))


def refuse_others() -> None:
    """Make backward through a registered operator that was called directly an error; to be called once.

    Exported programs and compiled backward passes call them so. PyTorch's own rule is a warning and no gradient.
    """
    if nodes.module is not None:
        parts = [part for operator in OPERATORS.values() if operator.name != "adamax" for part in operator.parts]
        nodes.module.refuse_derivatives(parts)


if nodes.module is not None:
    nodes.module.set_reference_gradient(_native_gradient)
