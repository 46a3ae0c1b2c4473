"""Convolutional coupling network 3x3 - ReLU - 1x1 - ReLU - 3x3 as one operator: schema, autograd, public function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern._autocast import without_autocast
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.coupling_network import reference as _reference
from hybridkern.ops.coupling_network.contract import CONTRACTS

_SIDE, _MOST, _WANTED = 32, 256, 8  # as in csrc/coupling_network


def _up(value: int, step: int) -> int:
    return (value + step - 1) // step


def hidden_size(batch: int, height: int, width: int, hidden: int) -> tuple[int, int, int]:
    """Slices, pixels of a slice and hidden channels of the saved activations: ``Slices`` of the kernels."""
    least: Callable[[int, int], int] = torch.sym_min
    most: Callable[[int, int], int] = torch.sym_max
    share = _up(batch * height * width, _WANTED)
    target = least(most(_up(share, _SIDE) * _SIDE, _SIDE), _MOST)
    groups = _up(batch, most(1, target // most(1, height * width)))
    bands = _up(height, most(1, target // most(1, width)))
    examples, rows = most(1, _up(batch, most(1, groups))), most(1, _up(height, most(1, bands)))
    return groups * bands, _up(examples * rows * width, _SIDE) * _SIDE, _up(hidden, _SIDE) * _SIDE


def gradients_like(*weights: Tensor) -> list[Tensor]:
    """Empty gradients of weights and biases: those of 3x3 convolutions in their layout, else autograd copies them."""
    return [
        torch.empty_like(value) if value.ndim == 4 and value.shape[-1] == 3 else value.new_empty(value.shape)
        for value in weights
    ]


def _fake_forward(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    bf16: bool,
    save_hidden: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, height, width = x.shape
    params = x.new_empty((batch, height, width, w3.shape[0])).permute(0, 3, 1, 2)
    slices, pixels, hidden = hidden_size(batch, height, width, w1.shape[0])
    dtype = torch.bfloat16 if bf16 and x.dtype is torch.float32 else x.dtype
    kept = [x.new_empty((slices if save_hidden else 0, pixels, hidden), dtype=dtype) for _ in range(2)]
    return params, kept[0], kept[1]


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    hidden1: Tensor,
    hidden2: Tensor,
    bf16: bool,
    wants_x: bool,
) -> tuple[Tensor, ...]:
    batch, channels, height, width = x.shape
    grad_x = x.new_empty((batch if wants_x else 0, height, width, channels)).permute(0, 3, 1, 2)
    return grad_x, *gradients_like(w1, b1, w2, b2, w3, b3)


_WEIGHTS = "Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor w3, Tensor b3"
OPERATOR = Operator(
    "coupling_network",
    {
        "forward": f"(Tensor x, {_WEIGHTS}, bool bf16, bool save_hidden) -> (Tensor, Tensor, Tensor)",
        "backward": f"(Tensor grad, Tensor x, {_WEIGHTS}, Tensor hidden1, Tensor hidden2, bool bf16, bool wants_x) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
    dtypes=(torch.float32, torch.float64),
)
_ARGUMENTS = 7  # x, three weights and three biases


_with_hidden: Callable[..., tuple[Tensor, Tensor, Tensor]] = runner(OPERATOR, "forward")


def _backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = run(OPERATOR, "backward", backend, grads[0], *saved, options[0], needs[0])
    return out


def _formulas(*args: Any) -> Tensor:
    x, w1, b1, w2, b2, w3, b3, bf16, _ = args
    with without_autocast(x.device):
        return _reference.coupling_network(x, w1, b1, w2, b2, w3, b3, bf16)


def _saves(args: Sequence[Any], outputs: Any) -> tuple[Tensor, ...]:
    return *args[:_ARGUMENTS], *outputs[1:]


def _inputs(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> Tensors:
    return saved[:_ARGUMENTS]


_recorded = recorded(
    Gradient("CouplingNetwork", _ARGUMENTS, _with_hidden, _saves, _backward, _formulas, _inputs, returns=1),
    "coupling_network",
    option_types(OPERATOR.kernels["forward"]),
)
_quick = quick("coupling_network")


def _validate(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> None:
    _tensors.check_tensor("x", x)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x: got dtype {x.dtype}, expected float32 or float64")
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"x: got shape {_tensors.shape_text(x.shape)}, expected (B, C, H, W) with a channel at least")
    channels = x.shape[1]
    _tensors.check_exactly("w1", w1, x, "hidden", channels, 3, 3)
    hidden = w1.shape[0]
    _tensors.check_exactly("b1", b1, x, hidden)
    _tensors.check_exactly("w2", w2, x, hidden, hidden, 1, 1)
    _tensors.check_exactly("b2", b2, x, hidden)
    _tensors.check_exactly("w3", w3, x, "out", hidden, 3, 3)
    _tensors.check_exactly("b3", b3, x, w3.shape[0])


def has_fused_network(x: Tensor) -> bool:
    """Whether :func:`coupling_network` is the fastest way for ``x``; the reference is slower than convolutions.

    On a GPU that is so under autocast in bfloat16: in float32 PyTorch's convolutions may round to TF32, which the
    products here do not.
    """
    if x.is_cpu:
        return x.dtype in OPERATOR.dtypes and choose(OPERATOR, x) == "cpp"
    return x.is_cuda and x.dtype is torch.float32 and _products_in_bf16(x) and choose(OPERATOR, x) == "triton"


def _products_in_bf16(x: Tensor) -> bool:
    device = x.device.type
    return _tensors.has_autocast(device) and torch.get_autocast_dtype(device) is torch.bfloat16


def coupling_network(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    *,
    save_hidden: bool = True,
) -> Tensor:
    r"""Network of a convolutional coupling, ``conv3(relu(conv2(relu(conv1(x)))))``, as one operator.

    ``conv1`` and ``conv3`` are 3x3 with zero padding 1, ``conv2`` is 1x1; all have stride 1. The arguments are weights
    and biases of three ``nn.Conv2d``. Under ``torch.autocast`` in bfloat16 the products read bfloat16 numbers (``x``,
    weights, hidden activations, and in backward their gradients) and sum in float32; input, output and gradients
    stay float32.

    Args:
        x: ``(B, C, H, W)``, float32 or float64 (or what autocast lowered, which is raised again).
        w1, b1: ``(hidden, C, 3, 3)`` and ``(hidden,)``, in the dtype of ``x``, as all that follow.
        w2, b2: ``(hidden, hidden, 1, 1)`` and ``(hidden,)``.
        w3, b3: ``(out, hidden, 3, 3)`` and ``(out,)``.
        save_hidden: keep both hidden activations for backward. Otherwise only ``x`` is kept, and they are computed
            again, a slice of the batch at a time. The gradients are the same, to the bit.

    Returns:
        ``(B, out, H, W)`` in channels_last, dtype of ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: the coupling network of Glow, Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.3 and appendix B.
    """
    weights = (w1, b1, w2, b2, w3, b3)
    save_hidden = _tensors.flag("save_hidden", save_hidden)
    params: Tensor | None
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
        bf16 = x.dtype is torch.float32 and _products_in_bf16(x)
        params = _quick(x, *weights, bf16, save_hidden)
        if params is not None:
            return params
    _validate(x, *weights)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _formulas(x, *weights, bf16, save_hidden)
    if needs_grad(x, *weights):
        params = _recorded(backend, x, *weights, bf16, save_hidden)
    else:
        params = _with_hidden(backend, x, *weights, bf16, False)[0]
    assert params is not None
    return params
