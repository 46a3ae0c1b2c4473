"""Networks of integers on a GPU: products of 8-bit integers summed in 32 bits by its matrix units.

Those multiply signed numbers, so activations are kept less 128; what that takes from a sum is a constant of its output
channel, which the bias gives back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from hybridkern.codec.integers import ADD_STREAM, SET_STREAM, TO_OUTPUT, first_activations
from hybridkern.codec.plans import check_plan
from hybridkern.codec.triton_kernels import layer_kernel
from hybridkern.ops._triton.launch import launch

_HALF = 128
_WIDTH = 32  # channels are rounded up to multiples of this, the least depth of a product of 8-bit integers
_ROWS, _MOST = 64, 64


class _Layer(NamedTuple):
    kept: int
    taps: int
    mode: int
    offset: int
    stream: tuple[int, int]
    border: int
    weights: Tensor
    numbers: tuple[Tensor, Tensor, Tensor]
    table: Tensor | None


def _up(channels: int) -> int:
    return (channels + _WIDTH - 1) // _WIDTH * _WIDTH


def _padded(value: Tensor, size: int, fill: int = 0) -> Tensor:
    return torch.cat([value, value.new_full((size - len(value),), fill)])


def _packed(row: list[int], weights: Tensor, numbers: Tensor, tables: Tensor) -> _Layer:
    inputs, outputs, taps, mode, offset, factor, shift, pad, at, number, place = row
    w = weights[at : at + outputs * taps * inputs].view(outputs, taps, inputs).permute(1, 2, 0)
    packed = w.new_zeros(taps, _up(inputs), _up(outputs))
    packed[:, :inputs, :outputs] = w
    bias, factors, shifts = numbers[number : number + 3 * outputs].long().view(3, outputs)
    bias = bias + _HALF * w.sum((0, 1), dtype=torch.int64)
    own = (_padded(bias, _up(outputs)), _padded(factors, _up(outputs)), _padded(shifts, _up(outputs), 1))
    table = None if mode == TO_OUTPUT else (tables[place : place + 256].short() - _HALF).to(torch.int8)
    return _Layer(outputs, taps, mode, offset, (factor, shift), pad - _HALF, packed, own, table)


class DeviceNet:
    """A network of integers on the device of its arrays; they are those of ``IntegerNet``."""

    def __init__(self, plan: Tensor, weights: Tensor, numbers: Tensor, tables: Tensor) -> None:
        check_plan(plan, weights, numbers, tables)  # a launch reads where the plan says
        head, *rows = plan.tolist()
        self._input, self._channels = head[:4], rows[0][0]
        self._layers = [_packed(row, weights, numbers, tables) for row in rows]

    def run(self, x: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)``, int64 within 30 bits -> int64 ``(B, C', H, W)``."""
        batch, channels, height, width = x.shape
        if channels != self._channels:
            raise ValueError(f"x: got {channels} channels, expected {self._channels}")
        positions = batch * height * width
        first = self._layers[0].weights.shape[1]
        image = x.new_zeros((batch, height, width, first), dtype=torch.int8)
        image[..., :channels] = (first_activations(x, self._input) - _HALF).permute(0, 2, 3, 1)
        stream: Tensor | None = None
        for layer in self._layers:
            _, inputs, outputs = layer.weights.shape
            last = layer.table is None
            shape = (batch, layer.kept, height, width) if last else (positions, outputs)
            to = x.new_empty(shape, dtype=torch.int32 if last else torch.int8)
            streams = layer.mode in (SET_STREAM, ADD_STREAM)
            if streams and stream is None:
                stream = x.new_empty((positions, outputs), dtype=torch.int16)
            columns, depth = min(_MOST, outputs & -outputs), min(_MOST, inputs & -inputs)
            launch(
                layer_kernel,
                triton.cdiv(positions, _ROWS) * (outputs // columns),
                x,
                *(image, layer.weights, *layer.numbers, layer.table, stream if streams else None, to),
                *(positions, height, width, layer.border, layer.offset, *layer.stream),
                IN=inputs,
                OUT=outputs,
                KEPT=layer.kept,
                TAPS=layer.taps,
                ADDS=layer.mode == ADD_STREAM,
                ROWS=_ROWS,
                COLUMNS=columns,
                DEPTH=depth,
                num_warps=8,
            )
            image = to
        return image.long()
