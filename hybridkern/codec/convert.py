"""A trained network to one of integers: steps of activations and weights chosen from data, scales as integers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern.codec.equalize import equalized
from hybridkern.codec.integers import ADD_STREAM, SET_STREAM, TO_TABLE, IntegerNet, shifted
from hybridkern.codec.rounding import covariances, fitted, rounded
from hybridkern.codec.splitting import split
from hybridkern.codec.stages import Stage, stages_of, steps_of
from hybridkern.codec.steps import best_step, input_bits, weight_steps

_FACTOR_BITS = 21  # of a factor
_MOST_SHIFT = 52
_ZERO = 128  # the activation that stands for the center of the input
_STREAM_RANGE = 20000  # of 32767: what the calibration images reach
_MOST_BIAS = 1 << 29


class _Grid(NamedTuple):
    """Activations: the real value is ``step * (a - zero)``."""

    step: float
    zero: int


def _fraction(ratio: float) -> tuple[int, int]:
    """``factor, shift`` with ``factor / 2**shift`` nearest to ``ratio``."""
    if ratio <= 0:
        return 0, 1
    shift = min(_FACTOR_BITS - math.frexp(ratio)[1], _MOST_SHIFT)
    if shift < 1:
        raise ValueError("model: got weights too large for a network of integers")
    return min(round(math.ldexp(ratio, shift)), (1 << 22) - 1), shift


def _weights(stage: Stage, grid: _Grid, learned: Tensor | None, square: Tensor | None) -> tuple[Tensor, Tensor]:
    """int8 weights ``(out, in, k, k)`` as float64, and their step per output channel.

    Steps that were not learned are chosen, and the weights then rounded for inputs with this covariance.
    """
    steps = weight_steps(stage.weight) if learned is None else learned
    steps = steps.maximum(stage.bias.abs() / (grid.step * _MOST_BIAS))
    empty = stage.weight.flatten(1).abs().amax(1) == 0  # nothing but a bias: its own step
    steps = torch.where(empty, (stage.bias.abs() / (grid.step * (1 << 20))).clamp(min=1e-12), steps)
    if square is None:
        return (stage.weight / steps[:, None, None, None]).round().clamp(-127, 127), steps
    return rounded(stage.weight, steps, square), steps


class Converter:
    """Turns one network into integers, with the activations of a sample going through both.

    Args:
        net: see :func:`~hybridkern.codec.stages.stages_of`.
        x: integers that it sees, ``(B, C, H, W)``.
        factors: what an output is multiplied by, a channel, before it is rounded; ``(out,)``.
        center, scale: of what the network sees, where it does not scale it itself.
    """

    def __init__(self, net: nn.Module, x: Tensor, factors: Tensor, center: float = 0.0, scale: float = 1.0) -> None:
        self.stages, own_center, own_scale = stages_of(net)
        if (own_center, own_scale) != (0.0, 1.0):
            center, scale = own_center, own_scale
        last = self.stages[-1]
        wide = factors.double()
        self.stages[-1] = Stage(last.weight * wide[:, None, None, None], last.bias * wide, last.mode)
        self.learned = steps_of(net)
        if self.learned is not None:
            self.learned.weights[-1] = self.learned.weights[-1] * wide.abs()
        self.rows: list[list[int]] = []
        self.weights: list[Tensor] = []
        self.numbers: list[Tensor] = []
        self.tables = torch.arange(256)  # a ReLU is the clamp of the index
        self._read(x, center, scale)
        self.limits = torch.empty(0)
        if self.learned is None:
            self.stages, self.limits = split(self.stages, self.real, _conv)
            self.stages = equalized(self.stages, self.real, _conv, self.limits)

    def _read(self, x: Tensor, center: float, scale: float) -> None:
        middle = round(center)
        bits = input_bits(x - middle) if self.learned is None else self.learned.bits
        factor, shift = (2, 1) if bits == 0 else (1, bits)
        a = (shifted(x - middle, factor, shift) + _ZERO).clamp(0, 255)
        self.rows.append([middle, factor, shift, _ZERO, *[0] * 7])
        self.grid = _Grid(2.0**bits / scale, _ZERO)
        self.offset = (middle - center) / scale  # of the real value that _ZERO stands for
        self.a = a.double()
        self.real = (x.double() - center) / scale  # in the network itself

    def convert(self) -> IntegerNet:
        """The network of integers."""
        stream_step = 1.0
        stream: Tensor | None = None  # in units of stream_step
        kept: Tensor | None = None  # in the network itself
        if any(stage.mode == SET_STREAM for stage in self.stages):
            stream_step = self._stream_reach() / _STREAM_RANGE
        for i, stage in enumerate(self.stages):
            wanted = _conv(self.real, stage.weight, stage.bias)
            missing = wanted
            if stage.mode == ADD_STREAM:  # with what the stream lacks so far
                assert kept is not None and stream is not None
                missing = kept + wanted - stream.double() * stream_step
            w, steps, bias = self._fitted(i, missing)
            sums = _conv(self.a, w, None, pad=self.grid.zero) + bias[:, None, None]
            real_step = self.grid.step * steps
            if stage.mode in (SET_STREAM, ADD_STREAM):
                kept = wanted if kept is None else kept + wanted
                self._write(stage, w, bias, real_step / stream_step)
                moved = self._rounded(sums)
                stream = (moved if stream is None else stream + moved).clamp(-32768, 32767)
                value, step, self.real = stream.double() * stream_step, stream_step, self._passed(kept)
            elif stage.mode == TO_TABLE:
                value, step, self.real = sums * real_step[:, None, None], 0.0, wanted.relu()
            else:
                self._write(stage, w, bias, real_step)
                break
            new = self._step(i, value, stage.mode)
            if stage.mode == TO_TABLE:
                self._write(stage, w, bias, real_step / new)
                index = self._rounded(sums)
            else:
                assert stream is not None
                factor, shift = _fraction(step / new)
                self.rows[-1][5:7] = [factor, shift]
                index = shifted(stream, factor, shift)
            self.a, self.grid, self.offset = index.clamp(0, 255).double(), _Grid(new, 0), 0.0
        return IntegerNet(
            torch.tensor(self.rows),
            torch.cat(self.weights).to(torch.int8),
            torch.cat(self.numbers).to(torch.int32),
            self.tables.to(torch.uint8),
        )

    def _passed(self, stream: Tensor) -> Tensor:
        """What a stage sees of the stream."""
        return stream.relu().minimum(self.limits[:, None, None]) if len(self.limits) else stream.relu()

    def _step(self, i: int, value: Tensor, mode: int) -> float:
        """Of the activations that a stage makes of these values."""
        if self.learned is not None:
            return self.learned.activations[i]
        limit = self.limits.min().item() if len(self.limits) else math.inf
        if mode != TO_TABLE and limit < math.inf:  # the largest activation is where a channel is cut off
            return limit / 255
        pre = value.relu()
        return best_step(pre, pre.max().item(), 255)

    def _stream_reach(self) -> float:
        """The largest magnitude of the stream in the network itself."""
        x, stream, most = self.real, torch.zeros(()), 0.0
        for stage in self.stages[:-1]:
            y = _conv(x, stage.weight, stage.bias)
            if stage.mode in (SET_STREAM, ADD_STREAM):
                stream = stream + y
                most, x = max(most, stream.abs().max().item()), self._passed(stream)
            else:
                x = y.relu()
        return most or 1.0

    def _fitted(self, i: int, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, their steps, and biases.

        Where no steps were learned, weights make up for what the integers before them have lost, and biases leave the
        mean of each channel. Outputs that are always zero stay so.
        """
        stage, learned, square = self.stages[i], self.learned, None
        weight, says = stage.weight, _says_something(stage)
        if learned is None:
            square, product = covariances(self.a - self.grid.zero, wanted, weight.shape[-1])
            made = fitted(weight * self.grid.step, square, product) / self.grid.step
            weight = torch.where(says[:, None, None, None], made, 0)
        given = Stage(weight, stage.bias + self.offset * weight.sum((1, 2, 3)), stage.mode)
        w, steps = _weights(given, self.grid, None if learned is None else learned.weights[i], square)
        real_step = self.grid.step * steps
        if learned is not None:
            shift = self.offset * steps * w.sum((1, 2, 3))
            return w, steps, ((stage.bias + shift) / real_step).round() - self.grid.zero * w.sum((1, 2, 3))
        plain = _conv(self.a, w, None, pad=self.grid.zero) - self.grid.zero * w.sum((1, 2, 3))[:, None, None]
        bias = torch.where(says, (wanted - plain * real_step[:, None, None]).mean((0, 2, 3)), 0)
        return w, steps, (bias / real_step).round() - self.grid.zero * w.sum((1, 2, 3))

    def _write(self, stage: Stage, w: Tensor, bias: Tensor, ratios: Tensor) -> None:
        """A row of the plan; ``ratios`` is what sums are multiplied by, an output channel."""
        fractions = torch.tensor([_fraction(ratio) for ratio in ratios.tolist()])
        out, inputs, side, _ = w.shape
        places = [sum(map(len, self.weights)), sum(map(len, self.numbers)), 0]
        self.rows.append([inputs, out, side * side, stage.mode, 0, 0, 1, self.grid.zero, *places])
        self.weights.append(w.permute(0, 2, 3, 1).flatten())
        if bias.abs().max() >= 1 << 30:
            raise ValueError("model: got a bias too large for a network of integers")
        self.numbers.append(torch.cat([bias.long(), fractions[:, 0], fractions[:, 1]]))

    def _rounded(self, sums: Tensor) -> Tensor:
        """The sums of the row that was written last, as the network of integers shifts them."""
        _, factor, shift = self.numbers[-1].view(3, -1, 1, 1)
        return shifted(sums.long(), factor, shift)


def _says_something(stage: Stage) -> Tensor:
    """Which outputs have a weight or a bias."""
    return (stage.weight.flatten(1) != 0).any(1) | (stage.bias != 0)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, pad: float = 0.0) -> Tensor:
    if weight.shape[-1] == 3:
        x = F.pad(x, (1, 1, 1, 1), value=pad)
    return F.conv2d(x, weight, bias)
