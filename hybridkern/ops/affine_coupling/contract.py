"""What the registered parts of ``affine_coupling`` ask of their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts
from hybridkern.ops.affine_coupling.form import COUNT, LAYOUTS, SCALES


def _coupling(main: str, x: Tensor, params: Tensor, code: int, numbers: Sequence[float]) -> None:
    _tensors.check_tensor(main, x)
    _rules.at_least(main, x, 2)
    scale, shift, layout = code & 15, (code >> 4) & 15, (code >> 8) & 15
    if not (0 <= code < 1 << 14 and scale < len(SCALES) and shift <= 2 and layout < len(LAYOUTS)):
        raise ValueError(f"code: got {code}, expected CouplingForm.code(inverse)")
    if len(numbers) != COUNT:
        raise ValueError(f"numbers: got {len(numbers)} numbers, expected the {COUNT} of CouplingForm.spec(inverse)")
    _tensors.check_param("params", params, x, main)
    _rules.shape("params", params, (x.shape[0], x.shape[1] * (2 if scale else 1), *x.shape[2:]))


def _coupling_forward(x: Tensor, params: Tensor, log_det: Tensor | None, code: int, numbers: Sequence[float]) -> None:
    _coupling("x", x, params, code, numbers)
    _rules.per_example("log_det", log_det, "x", x)


def _coupling_backward(
    known: Tensor,
    params: Tensor,
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    code: int,
    numbers: Sequence[float],
    *rest: Any,
    **_: Any,
) -> None:
    _coupling("known", known, params, code, numbers)
    if grad_y is not None:
        _rules.same("grad_y", grad_y, "known", known)
    _rules.per_example("grad_log_det", grad_log_det, "known", known)


CONTRACTS: Contracts = {
    "forward": _coupling_forward,
    "backward": _coupling_backward,
    "backward_from_output": _coupling_backward,
}
