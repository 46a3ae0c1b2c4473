"""What a sequence of invertible steps keeps for its backward pass: everything, each step's input, or its output only.

A step is a module that maps ``(state, log_det, *inputs)`` to ``(state, log_det)``, with ``state`` a tuple of tensors
``(B, ...)``, ``log_det`` ``(B,)`` to which it adds its own, and ``inputs`` tensors that belong to the step but
are made elsewhere; ``step.inverse`` takes the same arguments and undoes it. :func:`run_steps` runs a sequence of them:

- ``"store"``: autograd as it is.
- ``"recompute"``: each step's input is kept; the backward pass runs the step again. One more forward pass of time.
- ``"invert"``: the last state is kept and the inputs are recovered from it, step by step: memory is flat in depth.

In the two that save memory, the parameters of the steps are arguments of one autograd node, so that gradients reach
them as they do otherwise (``DistributedDataParallel`` sees nothing special). A step that is run again sees the random
state and the autocast state of its first run, and leaves its buffers (running statistics) alone. Networks inside the
steps may be compiled; where a whole flow is compiled, the compiler decides what is kept, and these modes do nothing.

Numerically, a recovered input differs from the true one by rounding, which an ill-conditioned step blows up; gradients
would then be wrong without a sign of it (Behrmann et al. 2020, arXiv:2006.09347). So ``"invert"`` keeps a few hundred
numbers of each step's input, compares them with what it recovers, and raises :class:`ReconstructionError`, which names
the step, beyond a tolerance.

A step may offer ``backward_from_output(state, inputs, remembered, grad_state, grad_log_det, params)``, which recovers
its input and gives the gradients at once (:class:`~hybridkern.transforms.glow_step.GlowStep` evaluates its network once
there and not twice), and ``remembered()``, small tensors of its last forward run that it wants back then. A step that
normalizes by its batch says so by ``by_batch``: its ``inverse`` alone does not undo it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from hybridkern._arguments import as_name
from hybridkern._calls import has_hooks
from hybridkern._values import transformed, version_of
from hybridkern.flows._replay import Replay
from hybridkern.flows._second_order import differentiable_gradients, recovered
from hybridkern.ops._autograd import by_formulas
from hybridkern.ops._backends import as_chosen, backend_names

MODES = ("store", "recompute", "invert")
State = tuple[Tensor, ...]
Grads = tuple[Tensor | None, ...]

# Relative to the largest number compared. A network in low precision rounds its input, and so jumps: recovered numbers
# then differ by the noise of that precision.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
LOW_PRECISION_TOLERANCE = 0.2


class ReconstructionError(ArithmeticError):
    """``memory="invert"`` could not recover the input of a step; the message names it."""


def check_mode(memory: object) -> str:
    """``memory`` itself.

    Raises:
        TypeError, ValueError: not one of the modes.
    """
    return as_name("memory", memory, MODES)


def run_steps(
    steps: Sequence[nn.Module], state: State, log_det: Tensor, inputs: Sequence[State] = (), *, memory: str = "store"
) -> tuple[State, Tensor]:
    """Runs the steps one after the other.

    Args:
        steps: as the text of this module says.
        state: tensors ``(B, ...)``.
        log_det: of the steps before, ``(B,)``.
        inputs: for each step the tensors that it takes beside its state; empty: none.
        memory: ``"store"``, ``"recompute"`` or ``"invert"``.

    Returns:
        The last state, and ``log_det`` with what the steps added.

    Raises:
        ValueError: an unknown ``memory``.
        ReconstructionError: in the backward pass of ``"invert"``.
    """
    check_mode(memory)
    given = list(inputs) if inputs else [()] * len(steps)
    plain = _holds_nothing(state[0]) or not torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed()
    if memory == "store" or plain:
        for step, own in zip(steps, given, strict=True):
            state, log_det = step(state, log_det, *own)
        return state, log_det
    run = Run(steps, given, state[0], memory)
    flat = [tensor for own in given for tensor in own]
    *out, log_det = _apply(run, len(state), *state, log_det, *flat, *run.params)
    return tuple(out), log_det


def _holds_nothing(value: Tensor) -> bool:
    """Memory is nothing to save on tensors that have none."""
    return value.is_meta


class Run:
    """One forward pass of a sequence, and what its backward pass has to know."""

    def __init__(self, steps: Sequence[nn.Module], inputs: Sequence[State], like: Tensor, memory: str) -> None:
        self.steps = list(steps)
        self.invert = memory == "invert"
        self.input_counts = [len(own) for own in inputs]
        # what the steps work with now: functional_call puts other tensors in their place, for the forward pass alone
        self.held = [dict(chain(step.named_parameters(), step.named_buffers())) for step in self.steps]
        self.names = [[n for n, p in step.named_parameters() if p.requires_grad] for step in self.steps]
        own_params = [[held[name] for name in names] for held, names in zip(self.held, self.names, strict=True)]
        unique = {id(p): p for own in own_params for p in own}
        self.params = list(unique.values())
        index = {key: i for i, key in enumerate(unique)}
        self.param_index = [[index[id(p)] for p in own] for own in own_params]
        self.backends = backend_names()  # the backward pass runs on the backend of the forward pass, in any thread
        self.replay = Replay(like.device)
        low = self.replay.lowers
        self.tolerance = LOW_PRECISION_TOLERANCE if low else TOLERANCE.get(like.dtype, LOW_PRECISION_TOLERANCE)
        self.samples: list[State] = []
        self.remembered: list[State] = []
        self.by_batch = False
        self.modes = [[(module, module.training) for module in step.modules()] for step in self.steps]
        # what gets a gradient is saved for the backward pass, which notices that it was changed; constants are not
        self.constants = [
            {name: version_of(p) for name, p in step.named_parameters() if not p.requires_grad} for step in self.steps
        ]
        # as they were before the first run: batch norm writes into them without a sign of it
        self.buffers: list[dict[str, Tensor]] = []

    def split_inputs(self, flat: Sequence[Tensor]) -> list[State]:
        """The tensors of each step."""
        parts, at = [], 0
        for count in self.input_counts:
            parts.append(tuple(flat[at : at + count]))
            at += count
        return parts

    def forward(self, state: State, log_det: Tensor, inputs: Sequence[State]) -> tuple[State, Tensor, list[State]]:
        """The steps without a graph; also the state before each, for ``"recompute"``."""
        kept: list[State] = []
        with self.replay.autocast():
            for step, own in zip(self.steps, inputs, strict=True):
                if self.invert:
                    self.samples.append(tuple(_sample(part) for part in state))
                else:
                    kept.append(state)
                self.buffers.append({name: buffer.clone() for name, buffer in step.named_buffers()})
                with self.replay.recording():
                    state, log_det = step(state, log_det, *own)
                remembered = getattr(step, "remembered", None)
                self.remembered.append(remembered() if self.invert and remembered else ())
                self.by_batch = self.by_batch or getattr(step, "by_batch", False)
        return state, log_det, kept

    def _check_constants(self, k: int) -> None:
        for name, version in self.constants[k].items():
            if version_of(self.held[k][name]) != version:
                raise RuntimeError(
                    f"{name} of step {k} ({type(self.steps[k]).__name__}): got values that were changed in place after "
                    "the forward pass, expected those of the forward pass, which the backward pass runs again"
                )

    def own_params(self, k: int, params: Sequence[Tensor]) -> list[Tensor]:
        """Those of ``params``, which stand for ``self.params``, that belong to step ``k``."""
        return [params[index] for index in self.param_index[k]]

    def leaves(self) -> list[Tensor]:
        """The parameters, for a gradient that stops at them: what one was computed from is none of this pass."""
        return [p if p.is_leaf else p.detach().requires_grad_() for p in self.params]

    @contextmanager
    def again(self, k: int, params: Sequence[Tensor] = ()) -> Iterator[None]:
        """Step ``k`` is run once more inside: with the parameters (or ``params`` in their place), buffers, modes and
        random numbers of its first run, and no trace in the buffers.
        """
        step, held = self.steps[k], self.held[k]
        # what required no gradient in the first run stays a constant, whatever was made of it since
        fixed = {name: value.detach() for name, value in held.items() if value.requires_grad}
        wanted = held | fixed | dict(zip(self.names[k], self.own_params(k, params or self.params), strict=True))
        wanted |= {name: old.clone() for name, old in self.buffers[k].items()}
        self._check_constants(k)
        present = dict(chain(step.named_parameters(), step.named_buffers()))
        other = {name: value for name, value in wanted.items() if present.get(name) is not value}
        swapped = _reparametrize_module(step, other, tie_weights=True) if other else nullcontext()
        with swapped, self.replay.replaying(k), _modes(self.modes[k]):
            yield


@contextmanager
def _modes(modes: list[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Modules in training or evaluation mode as they were."""
    changed = [(module, module.training) for module, wanted in modes if module.training is not wanted]
    for module, now in changed:
        module.training = not now
    try:
        yield
    finally:
        for module, now in changed:
            module.training = now


def _sample(part: Tensor) -> Tensor:
    """A few hundred numbers, spread over the examples and positions: all channels of at most 2 x 4 x 4."""
    most = (2, part.shape[1] if part.ndim > 1 else 1) + (4,) * (part.ndim - 2)
    return part[
        tuple(slice(None, None, max(1, -(-size // m))) for size, m in zip(part.shape, most, strict=False))
    ].clone()


def _error(part: Tensor, kept: Tensor) -> Tensor:
    """Largest difference, relative to the largest number; NaN where anything is."""
    if kept.numel() == 0:
        return kept.new_zeros(())
    return (_sample(part) - kept).abs().amax() / kept.abs().amax().clamp(min=torch.finfo(kept.dtype).tiny)


def _state_error(state: State, samples: State) -> Tensor:
    return torch.stack([_error(part.detach(), kept) for part, kept in zip(state, samples, strict=True)]).amax()


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, parts: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, log_det, rest = tensors[:parts], tensors[parts], tensors[parts + 1 :]
        flat = rest[: len(rest) - len(run.params)]
        out, log_det, kept = run.forward(state, log_det, run.split_inputs(flat))
        ctx.run, ctx.parts = run, parts
        saved = out if run.invert else tuple(part for before in kept for part in before)
        ctx.save_for_backward(*flat, *run.params, *saved)
        return *out, log_det

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        run, parts = ctx.run, ctx.parts
        count = sum(run.input_counts)
        saved = ctx.saved_tensors
        inputs = run.split_inputs(saved[:count])
        states = saved[count + len(run.params) :]
        del saved
        with as_chosen(run.backends):
            own: Sequence[Tensor | None]
            if by_formulas() or any(map(torch._C._functorch.is_legacy_batchedtensor, grads)):
                own, to_inputs, to_params = _with_graph(run, parts, states, inputs, grads)
            else:
                backward = _from_output if run.invert else _from_inputs
                own, to_inputs, to_params = backward(run, parts, states, inputs, tuple(grads[:-1]), grads[-1])
        return None, None, *own, grads[-1], *to_inputs, *to_params


def _with_graph(
    run: Run, parts: int, states: Sequence[Tensor], inputs: list[State], grads: Sequence[Tensor]
) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
    first: State = tuple(states[:parts])
    with torch.enable_grad():
        if run.invert:
            if run.by_batch:
                raise RuntimeError(
                    "memory='invert': second derivatives of batch norm in training mode, whose inverse knows the "
                    "batch's statistics as constants only: expected memory='recompute' or 'store', or eval()"
                )
            first, befores = recovered(run, first, inputs, grads[-1])
            _check(run, [_state_error(*pair) for pair in zip(befores, reversed(run.samples), strict=True)])
        return differentiable_gradients(run, first, inputs, grads)


_apply: Callable[..., tuple[Tensor, ...]] = _Steps.apply


def _same_layout(grad: Tensor, param: Tensor) -> bool:
    """Strides of dims of one element say nothing."""
    strides = zip(param.shape, grad.stride(), param.stride(), strict=True)
    return all(own == other for size, own, other in strides if size != 1)


class _Gradients:
    """Gradients of inputs and parameters, filled from the last step to the first."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.leaves = run.leaves()
        self.inputs: list[Grads] = [()] * len(run.steps)
        self.params: list[Tensor | None] = [None] * len(run.params)

    def put(self, k: int, inputs: Grads, params: Sequence[Tensor | None]) -> None:
        self.inputs[k] = inputs
        for index, grad in zip(self.run.param_index[k], params, strict=True):
            before, param = self.params[index], self.run.params[index]
            if grad is not None and not _same_layout(grad, param):
                # autograd takes a gradient over only in its parameter's layout, and would copy all of them at the end
                grad = torch.empty_like(param).copy_(grad)
            self.params[index] = grad if before is None else before if grad is None else before + grad

    def flat_inputs(self) -> list[Tensor | None]:
        return [grad for own in self.inputs for grad in own]


def _differentiate(
    step: nn.Module, state: State, inputs: State, params: Sequence[Tensor], grad_state: State, grad_log_det: Tensor
) -> tuple[State, Grads, Grads]:
    """Gradients in ``state``, ``inputs`` and ``params``, by running the step once more."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (*state, *inputs)]
        out, log_det = step(tuple(leaves[: len(state)]), torch.zeros_like(grad_log_det), *leaves[len(state) :])
    pairs = [pair for pair in zip((*out, log_det), (*grad_state, grad_log_det), strict=True) if pair[0].requires_grad]
    outputs, incoming = zip(*pairs, strict=True)
    grads = torch.autograd.grad(outputs, (*leaves, *params), incoming, allow_unused=True)
    own, rest = grads[: len(state)], grads[len(state) :]
    filled = tuple(torch.zeros_like(part) if grad is None else grad for part, grad in zip(state, own, strict=True))
    return filled, rest[: len(inputs)], rest[len(inputs) :]


def _from_inputs(
    run: Run, parts: int, states: Sequence[Tensor], inputs: list[State], grad_state: State, grad_log_det: Tensor
) -> tuple[State, list[Tensor | None], list[Tensor | None]]:
    gradients = _Gradients(run)
    with run.replay.autocast():
        for k in reversed(range(len(run.steps))):
            state = tuple(states[k * parts : (k + 1) * parts])
            with run.again(k, gradients.leaves):
                grad_state, to_inputs, to_params = _differentiate(
                    run.steps[k], state, inputs[k], run.own_params(k, gradients.leaves), grad_state, grad_log_det
                )
            gradients.put(k, to_inputs, to_params)
    return grad_state, gradients.flat_inputs(), gradients.params


def _from_output(
    run: Run, parts: int, state: Sequence[Tensor], inputs: list[State], grad_state: State, grad_log_det: Tensor
) -> tuple[State, list[Tensor | None], list[Tensor | None]]:
    gradients, errors = _Gradients(run), []
    current: State = tuple(state)
    with run.replay.autocast():
        for k in reversed(range(len(run.steps))):
            step, params = run.steps[k], run.own_params(k, gradients.leaves)
            with run.again(k, gradients.leaves):
                fused = _fused_backward(step)
                if fused is not None:
                    current, grad_state, to_inputs, to_params = fused(
                        current, inputs[k], run.remembered[k], grad_state, grad_log_det, params
                    )
            if fused is None and run.by_batch:
                raise RuntimeError(
                    f"memory='invert': batch norm in training mode in step {k}, which is watched by a hook or has a "
                    "forward of its own, cannot be inverted: expected memory='recompute' or 'store', or no such hook"
                )
            if fused is None:
                current, grad_state, to_inputs, to_params = _invert(
                    run, k, current, inputs[k], gradients.leaves, grad_state, grad_log_det
                )
            gradients.put(k, to_inputs, to_params)
            errors.append(_state_error(current, run.samples[k]))
    _check(run, errors)
    return grad_state, gradients.flat_inputs(), gradients.params


def _fused_backward(step: nn.Module) -> Callable[..., Any] | None:
    """``step.backward_from_output``, unless calling ``step`` does more than that method undoes."""
    if has_hooks((step,)) or "forward" in step.__dict__:
        return None
    for base in type(step).__mro__:
        if "backward_from_output" in base.__dict__:
            fused: Callable[..., Any] = getattr(step, "backward_from_output")  # noqa: B009
            return fused
        if "forward" in base.__dict__:
            return None
    return None


def _invert(
    run: Run, k: int, state: State, inputs: State, leaves: Sequence[Tensor], grad_state: State, grad_log_det: Tensor
) -> tuple[State, State, Grads, Grads]:
    """A step without a backward pass of its own: inverted, then run again, each with the random numbers it had."""
    with run.again(k), torch.no_grad():
        before, _ = run.steps[k].inverse(state, torch.zeros_like(grad_log_det), *inputs)  # type: ignore[operator]
    with run.again(k, leaves):
        grads = _differentiate(run.steps[k], before, inputs, run.own_params(k, leaves), grad_state, grad_log_det)
    return before, *grads


def _check(run: Run, errors: list[Tensor]) -> None:
    """One look at the errors of all steps, which waits for the device once. The last step comes first in them."""
    for k, error in zip(reversed(range(len(run.steps))), torch.stack(errors).tolist(), strict=True):
        if not error <= run.tolerance:
            raise ReconstructionError(
                f"memory='invert': the input of step {k} of {len(run.steps)} ({type(run.steps[k]).__name__}) was "
                f"recovered with a relative error of {error:.2g}, expected at most {run.tolerance:g}; the flow is too "
                "ill-conditioned to be inverted in this precision (memory='recompute' does not invert)"
            )
