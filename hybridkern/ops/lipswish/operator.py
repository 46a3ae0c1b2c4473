"""Activations of Lipschitz constant one, with derivatives of every order: the validated public functions.

There is no kernel of them yet: every backend that is chosen automatically is the reference.
"""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._backends import choose
from hybridkern.ops._operator import Operator
from hybridkern.ops.lipswish import reference as _reference

OPERATOR = Operator("lipswish", dtypes=())


def _validate(x: Tensor, beta: Tensor, at_least: int) -> None:
    _tensors.check_batched("x", x, at_least)
    _tensors.check_tensor("beta", beta)
    if beta.numel() != 1:
        raise ValueError(f"beta: got shape {_tensors.shape_text(beta.shape)}, expected one element: () or (1,)")
    _tensors.check_same_device("beta", beta, x)


def lipswish(x: Tensor, beta: Tensor) -> Tensor:
    r"""Swish with a slope of at most one: ``x sigmoid(softplus(beta) x) / 1.1``.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16.
        beta: one element, ``()`` or ``(1,)``; any of these dtypes. Usually learnt, from 0.5.

    Returns:
        Like ``x``. First, second and further derivatives in ``x`` and ``beta`` are those of the formula.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Chen et al. 2019 (arXiv:1906.02735), section 3.3.
    """
    _validate(x, beta, 1)
    choose(OPERATOR, x)  # an explicit choice of a backend without this operator is an error
    return _reference.lipswish(x, beta)


def clipswish(x: Tensor, beta: Tensor) -> Tensor:
    r"""``(lipswish(x), lipswish(-x)) / 1.004``, joined at dim 1: twice the channels, together of slope at most one.

    Args:
        x: values, ``(B, C, *S)``; float32, float64, bfloat16 or float16.
        beta: one element, ``()`` or ``(1,)``; any of these dtypes.

    Returns:
        ``(B, 2C, *S)``, dtype of ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Perugachi-Diaz et al. 2021 (arXiv:2102.02694), section 3.3.
    """
    _validate(x, beta, 2)
    choose(OPERATOR, x)
    return _reference.clipswish(x, beta)
