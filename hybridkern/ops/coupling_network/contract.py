"""What the registered parts of ``coupling_network`` ask of their arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _network(x: Tensor, *rest: Any) -> None:
    _rules.working("x", x, 4)
    w1, b1, w2, b2, w3, b3 = rest[:6]
    hidden, out = (value.shape[0] if value.ndim else 0 for value in (w1, w3))
    _rules.same("w1", w1, "x", x, (hidden, x.shape[1], 3, 3))
    _rules.same("b1", b1, "x", x, (hidden,))
    _rules.same("w2", w2, "x", x, (hidden, hidden, 1, 1))
    _rules.same("b2", b2, "x", x, (hidden,))
    _rules.same("w3", w3, "x", x, (out, hidden, 3, 3))
    _rules.same("b3", b3, "x", x, (out,))


def _network_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    _network(x, *rest)
    _rules.same("grad", grad, "x", x, (x.shape[0], rest[4].shape[0], *x.shape[2:]))
    padded = (rest[0].shape[0] + 31) // 32 * 32
    dtype = torch.bfloat16 if rest[8] and x.dtype is torch.float32 else x.dtype
    for name, kept in (("hidden1", rest[6]), ("hidden2", rest[7])):
        if kept.ndim != 3:
            raise ValueError(f"{name}: got shape {_tensors.shape_text(kept.shape)}, expected three dimensions")
        if not isinstance(kept.shape[0], int) or kept.shape[0] > 0:
            if kept.dtype is not dtype:
                raise TypeError(f"{name}: got dtype {kept.dtype}, expected {dtype}, as forward made it")
            _tensors.check_same_device(name, kept, x)
            _rules.shape(name, kept, (kept.shape[0], kept.shape[1], padded))


CONTRACTS: Contracts = {"forward": _network, "backward": _network_backward}
