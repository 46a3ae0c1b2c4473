"""What a network of integers asks of its arrays, which may come from a file: csrc/codec/bind_network.cpp asks the same.

Beyond these bounds a kernel would read what is not there, or a sum or shift would not be what another backend computes.
"""

from __future__ import annotations

import torch
from torch import Tensor

TO_TABLE, SET_STREAM, ADD_STREAM, TO_OUTPUT = range(4)
FIELDS = 11
ENTRIES = 256  # of a table
_MOST_CHANNELS, _MOST_ACTIVATION = 4096, 255
_MOST_CENTER, _MOST_OFFSET = 1 << 30, 1 << 20
_FACTORS, _MOST_SHIFT = 1 << 22, 52
_DTYPES = {"plan": torch.int64, "weights": torch.int8, "numbers": torch.int32, "tables": torch.uint8}


def check_plan(plan: Tensor, weights: Tensor, numbers: Tensor, tables: Tensor) -> None:
    """The arrays of an ``IntegerNet`` fit each other; all on one device.

    Raises:
        ValueError: they do not; the message begins with the name of an array.
    """
    for (name, dtype), value in zip(_DTYPES.items(), (plan, weights, numbers, tables), strict=True):
        if value.dtype is not dtype or value.ndim != (2 if name == "plan" else 1):
            raise ValueError(f"{name}: got {value.dtype} of shape {tuple(value.shape)}, expected {dtype}")
    if plan.shape[0] < 2 or plan.shape[1] != FIELDS:
        raise ValueError(f"plan: got shape {tuple(plan.shape)}, expected (layers + 1, {FIELDS})")
    head, *rows = plan.tolist()
    _check_input(*head[:4])
    _check_layers(rows)
    for row in rows:
        _check_arrays(row, weights, numbers, tables)


def _check(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"plan: got {what}, expected {expected}")


def _check_rounding(factor: int, shift: int) -> None:
    within = 0 <= factor < _FACTORS and 1 <= shift <= _MOST_SHIFT
    _check(within, f"factor {factor} and shift {shift}", f"0 to {_FACTORS - 1} and 1 to {_MOST_SHIFT}")


def _check_input(center: int, factor: int, shift: int, zero: int) -> None:
    _check(abs(center) <= _MOST_CENTER, f"center {center}", f"{_MOST_CENTER} at most")
    _check_rounding(factor, shift)
    _check(0 <= zero <= _MOST_ACTIVATION, f"zero {zero}", f"0 to {_MOST_ACTIVATION}")


def _check_layers(rows: list[list[int]]) -> None:
    width, stream = rows[0][0], 0
    for i, (inputs, outputs, taps, mode, offset, factor, shift, pad, *_) in enumerate(rows):
        sizes = 1 <= inputs <= _MOST_CHANNELS and 1 <= outputs <= _MOST_CHANNELS and taps in (1, 9)
        _check(sizes, f"{inputs} inputs, {outputs} outputs, {taps} taps", f"1 to {_MOST_CHANNELS}, and 1 or 9 taps")
        _check(inputs == width, f"{inputs} inputs after {width} outputs", "as many")
        _check(
            mode in range(4) and (mode == TO_OUTPUT) == (i == len(rows) - 1), f"mode {mode}", "0 to 2, and 3 at last"
        )
        _check(0 <= pad <= _MOST_ACTIVATION, f"pad {pad}", f"0 to {_MOST_ACTIVATION}")
        _check(abs(offset) <= _MOST_OFFSET, f"offset {offset}", f"{_MOST_OFFSET} at most")
        if mode in (SET_STREAM, ADD_STREAM):
            _check_rounding(factor, shift)
            one = stream in (0, outputs) and (mode == SET_STREAM or stream > 0)
            _check(
                one,
                f"mode {mode} of {outputs} channels beside a stream of {stream}",
                "one stream, set before it is added to",
            )
            stream = outputs
        width = outputs


def _check_arrays(row: list[int], weights: Tensor, numbers: Tensor, tables: Tensor) -> None:
    inputs, outputs, taps, mode, *_, at, number, place = row
    own = _part("weights", weights, at, outputs * taps * inputs).view(outputs, -1).long()
    bias, factors, shifts = _part("numbers", numbers, number, 3 * outputs).long().view(3, outputs)
    if mode != TO_OUTPUT:
        _part("tables", tables, place, ENTRIES)
    for pair in torch.stack((factors, shifts), 1).unique(dim=0).tolist():
        _check_rounding(*pair)
    least = bias + _MOST_ACTIVATION * own.clamp(max=0).sum(1)
    most = bias + _MOST_ACTIVATION * own.clamp(min=0).sum(1)
    within = bool((least >= -(1 << 31)).all() and (most < 1 << 31).all())
    _check(within, "sums beyond 32 bits", "sums within them, whatever the activations")


def _part(name: str, of: Tensor, begin: int, count: int) -> Tensor:
    _check(0 <= begin <= len(of) - count, f"{name} from {begin} on", f"{count} of the {len(of)} there are")
    return of[begin : begin + count]
