"""What the registered parts of ``affine_coupling_actnorm`` ask of their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _actnorm(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor | None, *form: Any) -> None:
    _rules.working("x", x, 2)
    width = x.shape[1]
    if params.ndim != 2:
        raise ValueError(f"params: got shape {_tensors.shape_text(params.shape)}, expected (B, 2n)")
    _rules.same("params", params, "x", x, (x.shape[0], params.shape[1]))
    if isinstance(params.shape[1], int) and isinstance(width, int):
        coupled, odd = divmod(params.shape[1], 2)
        if odd or not 1 <= coupled <= width:
            raise ValueError(
                f"params: got shape {_tensors.shape_text(params.shape)}, expected (B, 2n) with n in 1 .. {width}"
            )
    _rules.same("scale", scale, "x", x, (width,))
    if offset is not None:
        _rules.same("offset", offset, "x", x, (width,))


def _actnorm_backward(grad_y: Tensor, grad_log_det: Tensor, x: Tensor, params: Tensor, scale: Tensor, *f: Any) -> None:
    _actnorm(x, params, scale, None)
    _rules.same("grad_y", grad_y, "x", x)
    _rules.per_example("grad_log_det", grad_log_det, "x", x)


CONTRACTS: Contracts = {"forward": _actnorm, "backward": _actnorm_backward}
