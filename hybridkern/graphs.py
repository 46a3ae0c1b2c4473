"""A whole training step as one CUDA graph: the host launches it once, and not kernel by kernel.

At small batches a flow's step waits for the host, which needs longer to launch a kernel than the device to run it. A
graph holds all launches of a step; what changes between steps must lie in tensors.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_number
from hybridkern._tensors import has_autocast
from hybridkern.flows._replay import draws, draws_nothing
from hybridkern.hybrid.objectives import Objective

_WARM_UP = 3  # steps of a shape before it is captured: kernels are compiled, optimizer states and workspaces made
_MOST_GRAPHS = 4  # shapes that are captured; each keeps the memory of its step
_MOST_KINDS = 64  # of steps that are counted
_INVERT = (
    "memory: got 'invert', expected 'store' or 'recompute' for a step in a CUDA graph: 'invert' looks at numbers in "
    "the backward pass, for which the host waits"
)


class GraphedStep:
    """A training step ``loss, backward, optimizer``, captured as a CUDA graph; on the CPU the plain step.

    ``step(x, y)`` does what these lines do, and returns the loss::

        optimizer.zero_grad()
        loss = model.loss(x, y, objective)
        loss.backward()
        optimizer.step()

    On a device the first three steps with batches of one shape run kernel by kernel; then the step is captured, and
    replayed from there on. Every call trains, captured or not. A batch of another shape (the last one of an epoch) is
    treated likewise; at most four shapes are captured, others run kernel by kernel. Batches in pinned memory are copied
    while the host goes on: what lies there may be changed once the loss has been read. Let losses of steps without this
    class go before the first capture: autograd goes on with the stream on which they were made.

    What may change between steps, and what happens then:

    - the learning rate: ``param_group["lr"]`` becomes a tensor on the device, which schedulers fill; a number that
      is put in its place is written into it;
    - the weight of an objective, where it is a tensor: ``objectives.Weighted(torch.tensor(0.5, device="cuda"))`` and
      ``fill_`` on that tensor;
    - values of parameters and buffers, in place, as ``load_state_dict`` writes them;
    - everything else (other options of the optimizer, its groups, its state replaced or cleared, modes, frozen
      parameters, other buffers, ``objective``, ``max_norm``) has the step captured anew;
    - settings of modules (``p`` of a dropout, ``memory`` of a flow) are not looked at: make another ``GraphedStep``.

    Args:
        model: has ``loss(x, y, objective)``, such as :class:`~hybridkern.hybrid.HybridModel`; all of it on one device.
            A flow in it has ``memory="store"``, or ``"recompute"`` and draws no random numbers (dropout).
        objective: one of :mod:`hybridkern.hybrid.objectives`.
        optimizer: of the model's parameters; on a device one with ``capturable=True``.
        autocast: ``torch.bfloat16`` for networks in low precision, or ``None``. float16 needs a scaled loss, whose
            scale the host decides on, and is refused.
        max_norm: the norm to which gradients are clipped; ``None``: not at all.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or what cannot be captured, with the reason.
        RuntimeError: in a call: a step that cannot be captured, with the reason.

    >>> import torch
    >>> from hybridkern import flows, hybrid
    >>> model = hybrid.HybridModel(flows.RealNVP(4, layers=2), hybrid.heads.Categorical(4, 3))
    >>> step = GraphedStep(model, hybrid.objectives.Weighted(0.5), torch.optim.Adam(model.parameters()))
    >>> step(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)).shape
    torch.Size([])
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        autocast: torch.dtype | None = None,
        max_norm: float | None = None,
    ) -> None:
        if not isinstance(model, nn.Module) or not callable(getattr(model, "loss", None)):
            raise TypeError(f"model: got {type(model).__name__}, expected a module with loss(x, y, objective)")
        if not isinstance(objective, Objective):
            raise TypeError(f"objective: got {type(objective).__name__}, expected one of hybridkern.hybrid.objectives")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer: got {type(optimizer).__name__}, expected a torch.optim.Optimizer")
        own = set(model.parameters())
        if not any(p in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer: got parameters of which the model has none, expected those of the model")
        if autocast not in (None, torch.bfloat16):
            raise ValueError(
                f"autocast: got {autocast}, expected torch.bfloat16 or None: float16 needs a scaled loss, and the "
                "host decides on its scale after each step"
            )
        self.model, self.objective, self.optimizer, self.autocast = model, objective, optimizer, autocast
        self.max_norm = max_norm
        if max_norm is not None:
            self.max_norm = as_number("max_norm", max_norm, lambda v: v > 0, "a number greater than 0")
        self.device = _device_of(model)
        self._rates: list[Tensor] = []
        self._seen: Counter[_Key] = Counter()
        self._graphs: dict[_Key, _Captured] = {}
        self._drew = False
        if _on_device(self.device):
            self._prepare()
            self._stream = torch.cuda.Stream(self.device)

    def _prepare(self) -> None:
        self._rates = []
        if any(getattr(module, "memory", None) == "invert" for module in self.model.modules()):
            raise ValueError(_INVERT)
        for group in self.optimizer.param_groups:
            if not group.get("capturable", False):
                raise ValueError(
                    f"optimizer: got {type(self.optimizer).__name__} without capturable=True, expected an optimizer "
                    "that counts its steps on the device, such as torch.optim.Adam(..., fused=True, capturable=True)"
                )
            rate = group["lr"]
            if not isinstance(rate, Tensor):
                group["lr"] = torch.full((), float(rate), device=self.device)
            elif rate.device != self.device:
                group["lr"] = rate.to(self.device)
            self._rates.append(group["lr"])

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One step on a batch; the loss ``()`` without gradient, as ``model.loss`` gives it.

        Args:
            x: ``(B, D)`` or as the model takes it; on the model's device or on the host.
            y: targets ``(B,)``, likewise.
        """
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")
        if has_autocast(self.device.type):
            raise RuntimeError("autocast: a context is active around the step; expected GraphedStep(..., autocast=...)")
        if not _on_device(self.device):
            return self.run(x, y)
        self._keep_rates()
        key = self._key(x, y)
        captured = self._graphs.get(key)
        if captured is not None:
            return captured.replay(x, y)
        if self._seen[key] < _WARM_UP or len(self._graphs) >= _MOST_GRAPHS:
            loss = self._alone(x, y)
            self._count(self._key(x, y))  # the step may have made the optimizer's state
            return loss
        self._forget_others(key)
        captured = self._graphs[key] = self._capture(x, y)
        return captured.replay(x, y)

    def run(self, x: Tensor, y: Tensor) -> Tensor:
        """The step itself, kernel by kernel, on tensors of the model's device: this is what a graph records."""
        self.optimizer.zero_grad(set_to_none=True)
        low = self.autocast is not None
        precision = torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext()
        with precision:
            loss: Tensor = self.model.loss(x, y, self.objective)  # type: ignore[operator]
        loss.backward()
        if self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.max_norm)
        self.optimizer.step()
        return loss.detach()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _keep_rates(self) -> None:
        """A rate that is no longer the tensor that graphs read is written into it, and put back.

        Not so where that is, or was, the tensor of another group, too: then the step is captured anew.
        """
        if len(self.optimizer.param_groups) != len(self._rates):
            self._prepare()
        for at, group in enumerate(self.optimizer.param_groups):
            given, rate = group["lr"], self._rates[at]
            if given is rate:
                continue
            others = {id(other) for other in (*self._rates[:at], *self._rates[at + 1 :])}
            if id(given) in others:
                self._rates[at] = given
                continue
            if id(rate) in others:
                rate = self._rates[at] = rate.clone()
            rate.copy_(given) if isinstance(given, Tensor) else rate.fill_(given)
            group["lr"] = rate

    def _count(self, key: _Key) -> None:
        if len(self._seen) >= _MOST_KINDS:
            self._seen.clear()
        self._seen[key] += 1

    def _key(self, x: Tensor, y: Tensor) -> _Key:
        """Everything that a captured step takes for granted."""
        options = tuple(
            (name, value)
            for group in self.optimizer.param_groups
            for name, value in group.items()
            if name not in ("params", "lr") and not isinstance(value, Tensor)
        )
        groups = tuple(tuple(map(id, group["params"])) for group in self.optimizer.param_groups)
        params = tuple((p.data_ptr(), p.requires_grad) for p in self.model.parameters())
        modes = tuple(module.training for module in self.model.modules())
        state = (value for own in self.optimizer.state.values() for value in own.values() if isinstance(value, Tensor))
        places = tuple(value.data_ptr() for value in (*self._rates, *self.model.buffers(), *state))
        own_options = id(self.objective), self.autocast, self.max_norm
        settings = _Settings(str(options), groups, params, modes, places, own_options)
        return _Key(x.shape, x.dtype, x.stride(), y.shape, y.dtype, settings)

    def _forget_others(self, key: _Key) -> None:
        """Graphs of other settings are of no use any more, and hold memory."""
        self._graphs = {other: graph for other, graph in self._graphs.items() if other.settings == key.settings}

    def _alone(self, x: Tensor, y: Tensor) -> Tensor:
        """On a stream of its own, as what is captured later must have been seen on one."""
        before = draws.seen
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self.run(*(value.to(self.device, non_blocking=True) for value in (x, y)))
        current.wait_stream(self._stream)
        loss.record_stream(current)
        self._drew = self._drew or draws.seen > before
        return loss

    def _capture(self, x: Tensor, y: Tensor) -> _Captured:
        if self._drew:
            raise RuntimeError(
                "memory: got 'recompute' with networks that draw random numbers (dropout), expected 'store' for a step "
                "in a CUDA graph: the numbers of the first run cannot be found again there"
            )
        places = [torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=self.device) for v in (x, y)]
        graph = torch.cuda.CUDAGraph()
        try:
            with draws_nothing(), torch.cuda.graph(graph, stream=self._stream):
                loss = self._record(*places)
        except RuntimeError as error:
            raise RuntimeError(f"the step cannot be captured as a CUDA graph: {error}") from error
        return _Captured(graph, places[0], places[1], loss, self.objective)

    def _record(self, x: Tensor, y: Tensor) -> Tensor:
        return self.run(x, y)


class _Settings(NamedTuple):
    """``places``: where rates, buffers and the state of the optimizer lie, all of which a graph reads or writes."""

    options: str
    groups: tuple[tuple[int, ...], ...]
    params: tuple[tuple[int, bool], ...]
    modes: tuple[bool, ...]
    places: tuple[int, ...]
    own: tuple[int, torch.dtype | None, float | None]


class _Key(NamedTuple):
    x_shape: torch.Size
    x_dtype: torch.dtype
    x_strides: tuple[int, ...]
    y_shape: torch.Size
    y_dtype: torch.dtype
    settings: _Settings


class _Captured(NamedTuple):
    """A graph, the tensors that it reads and writes, and its objective, kept so that its ``id`` does not return."""

    graph: Any
    x: Tensor
    y: Tensor
    loss: Tensor
    objective: Objective

    def replay(self, x: Tensor, y: Tensor) -> Tensor:
        self.x.copy_(x, non_blocking=True)
        self.y.copy_(y, non_blocking=True)
        self.graph.replay()
        return self.loss.clone()


def _on_device(device: torch.device) -> bool:
    return device.type == "cuda"


def _device_of(model: nn.Module) -> torch.device:
    devices = {p.device for p in model.parameters()} | {b.device for b in model.buffers()}
    if len(devices) != 1:
        found = ", ".join(sorted(map(str, devices))) or "no parameter"
        raise ValueError(f"model: got tensors on {found}, expected all of them on one device")
    return devices.pop()
