"""Networks of integers: 8-bit activations and weights, sums of 32 bits, one fixed rounding a layer.

What such a network gives is a function of integers and so the same for every batch size, thread count, instruction set
and device. It is a row of convolutions, 3x3 with a border or 1x1. With ``shifted(v) = (v * factor + 2**(shift - 1)) >>
shift``, an input ``x`` becomes ``clamp(shifted(x - center) + zero, 0, 255)``; the sums of a layer and its bias, shifted
an output channel, are

- ``TO_TABLE``: an index, clamped to 0 to 255, into a table of 256 activations (a nonlinearity);
- ``SET_STREAM``, ``ADD_STREAM``: the residual stream of 16 bits, or added to it; the stream, shifted, is the index;
- ``TO_OUTPUT``: the result, clamped to 30 bits.

csrc/codec/network.h holds the same for the compiled kernels, hybridkern/codec/triton_kernels.py for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._extension import extension
from hybridkern.codec.plans import ADD_STREAM, FIELDS, SET_STREAM, TO_OUTPUT, TO_TABLE, check_plan
from hybridkern.ops import _gpu
from hybridkern.ops._backends import backend_names

__all__ = ["ADD_STREAM", "FIELDS", "SET_STREAM", "TO_OUTPUT", "TO_TABLE", "IntegerNet", "first_activations", "shifted"]
_MOST_OUTPUT = 1 << 30
_MOST_INPUT = 1 << 30


def shifted(value: Tensor, factor: Tensor | int, shift: Tensor | int) -> Tensor:
    """``value * factor / 2**shift`` rounded to the nearest integer, a half up; int64."""
    half = torch.ones((), dtype=torch.int64) << (torch.as_tensor(shift) - 1)
    return (value * factor + half) >> torch.as_tensor(shift)


def first_activations(x: Tensor, plan: list[int]) -> Tensor:
    """What the first layer sees of an input, 0 to 255; ``plan`` is its row."""
    center, factor, shift, zero = plan[:4]
    return (shifted(x.long() - center, factor, shift) + zero).clamp(0, 255)


class _Extension:
    """The compiled kernels, on the CPU."""

    def __init__(self, *arrays: Tensor) -> None:
        assert extension.module is not None
        self._network = extension.module.IntegerNetwork(*(array.numpy() for array in arrays))

    def run(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._network.run(np.ascontiguousarray(x.numpy(), np.int32))).long()


def _served_by(x: Tensor) -> str:
    """``"cpp"``, ``"triton"`` or ``"reference"``."""
    chosen = backend_names()
    if x.is_cpu and not (_gpu.state.interpreted and chosen[:1] == ("triton",)):
        return "reference" if extension.module is None or chosen[:1] == ("reference",) else "cpp"
    on_gpu = x.is_cuda or x.is_cpu
    return "triton" if on_gpu and _gpu.state.has_triton and (not chosen or "triton" in chosen) else "reference"


def _built(served: str, *arrays: Tensor) -> Any:
    if served == "cpp":
        return _Extension(*arrays)
    from hybridkern.codec.triton import DeviceNet  # imports triton

    return DeviceNet(*arrays)


class IntegerNet(nn.Module):
    """A network of integers ``(B, C, H, W) -> (B, C', H, W)``, int64.

    Args:
        plan: int64 ``(layers + 1, 11)``; first of the input ``center, factor, shift, zero``, then a layer a row:
            ``in, out, taps, mode, offset of the index, factor and shift of the stream, pad, place of the weights,
            place of the numbers, place of the table``.
        weights: int8, of a layer ``[out][tap][in]``.
        numbers: int32, of a layer the biases, factors and shifts of its output channels.
        tables: uint8, 256 entries each.
    """

    plan: Tensor
    weights: Tensor
    numbers: Tensor
    tables: Tensor

    def __init__(self, plan: Tensor, weights: Tensor, numbers: Tensor, tables: Tensor) -> None:
        super().__init__()
        for name, value in (("plan", plan), ("weights", weights), ("numbers", numbers), ("tables", tables)):
            self.register_buffer(name, value)
        self._built: tuple[str, Any] | None = None  # what computes it, and by whom it is served
        self._is_checked = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_built": None, "_is_checked": False}  # a copy builds its own, from its arrays

    @property
    def outputs(self) -> int:
        """Channels that it gives."""
        return int(self.plan[-1, 1])

    def check(self, inputs: int | None = None, outputs: int | None = None) -> None:
        """Looks at the arrays, which may come from a file, once; and at the channels, where they are given.

        Raises:
            ValueError: a plan that points beyond its arrays, with which sums or shifts leave their range, or of other
                channels.
        """
        if not self._is_checked:
            check_plan(self.plan, self.weights, self.numbers, self.tables)
            self._is_checked = True
        own = int(self.plan[1, 0]), self.outputs
        if inputs is not None and own != (inputs, outputs):
            raise ValueError(f"plan: got {own[0]} inputs and {own[1]} outputs, expected {inputs} and {outputs}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntegerNet:
        self._built, self._is_checked = None, False  # the arrays may go to another device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)``, any integer dtype -> int64 ``(B, C', H, W)``."""
        x = x.clamp(-_MOST_INPUT, _MOST_INPUT)
        served = _served_by(x)
        if served == "reference":
            return self.reference(x)
        if self._built is None or self._built[0] != served:
            self._built = served, _built(served, self.plan, self.weights, self.numbers, self.tables)
        found: Tensor = self._built[1].run(x)
        return found

    def reference(self, x: Tensor) -> Tensor:
        """The same in plain PyTorch: products in float64, where sums of integers below ``2**53`` are exact."""
        self.check()
        head, *rows = self.plan.tolist()
        if x.ndim != 4 or x.shape[1] != rows[0][0]:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, {rows[0][0]}, H, W)")
        a = first_activations(x, head)
        stream: Tensor | None = None
        for row in rows:
            _, _, _, mode, offset, factor, shift, _, _, _, place = row
            v = self._summed(a, row)
            if mode == TO_OUTPUT:
                return v
            if mode != TO_TABLE:
                stream = (v if mode == SET_STREAM or stream is None else stream + v).clamp(-32768, 32767)
                v = shifted(stream, factor, shift)
            a = self.tables[place : place + 256].long()[(v + offset).clamp(0, 255)]
        raise AssertionError("the last layer is no output")

    def _summed(self, a: Tensor, row: list[int]) -> Tensor:
        inputs, outputs, taps, pad, at, number = *row[:3], *row[7:10]
        side = 3 if taps == 9 else 1
        w = self.weights[at : at + outputs * taps * inputs].double().view(outputs, taps, inputs)
        a = F.pad(a.double(), (1, 1, 1, 1), value=float(pad)) if taps == 9 else a.double()
        # as a product of matrices: a library's convolution may go by transforms, which are not exact
        height, width = a.shape[2] - side + 1, a.shape[3] - side + 1
        sums = (w.transpose(1, 2).flatten(1) @ F.unfold(a, side)).long().unflatten(2, (height, width))
        bias, factor, shift = self.numbers[number : number + 3 * outputs].long().view(3, outputs, 1, 1)
        return shifted(sums + bias, factor, shift).clamp(-_MOST_OUTPUT, _MOST_OUTPUT)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("plan", "weights", "numbers", "tables"):
            if prefix + name in state_dict:  # whatever its size: a network is its arrays
                setattr(self, name, state_dict[prefix + name].clone())
        self._built, self._is_checked = None, False
        super()._load_from_state_dict(state_dict, prefix, *args)
