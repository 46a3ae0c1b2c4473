"""The fused half coupling of small integer flows: bit for bit what its parts give, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridkern.ops.rounding_coupling_mirrored.operator import rounding_coupling_mirrored
from tests.ops import inputs

SIZES = [(1, 1), (7, 5), (64, 32), (3, 0), (0, 4), (700, 33)]
KINDS = [torch.float32, torch.float64]


def arguments(rows: int, half: int, dtype: torch.dtype) -> list[torch.Tensor]:
    a, b = (inputs.normal(i, (rows, half), dtype, scale=9.0).round() for i in range(2))
    t = inputs.normal(2, (rows, half), dtype, scale=3.0)
    return [value.requires_grad_() for value in (a, b, t, torch.tensor([0.3, 1.75, -0.6], dtype=dtype))]


def expected(args: list[torch.Tensor], exact: bool) -> np.ndarray:
    a, b, t, beta = (value.detach().cpu().numpy() for value in args)
    step = np.rint(beta[1] * t) if exact else beta[1] * np.rint(t)
    return np.concatenate((a, b + step), 1)[:, ::-1]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_value(backend: str, size: tuple[int, int], dtype: torch.dtype, exact: bool) -> None:
    args = arguments(*size, dtype)
    joined = rounding_coupling_mirrored(*args, 1, lattice="exact" if exact else "tutorial", join=True)
    halves = rounding_coupling_mirrored(*args, 1, lattice="exact" if exact else "tutorial")
    # beta * round(t) may be fused with the addition: one rounding less
    bound = 0.0 if exact else 4 * torch.finfo(dtype).eps * 40
    assert joined.shape == (size[0], 2 * size[1])
    np.testing.assert_allclose(joined.detach().cpu().numpy(), expected(args, exact), rtol=0, atol=bound)
    assert torch.equal(torch.cat(halves, 1), joined)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("join", [True, False])
def test_straight_through_gradient(
    backend: str, size: tuple[int, int], dtype: torch.dtype, exact: bool, join: bool
) -> None:
    args = arguments(*size, dtype)
    out = rounding_coupling_mirrored(*args, 1, lattice="exact" if exact else "tutorial", join=join)
    outs = (out,) if join else out
    grad = inputs.normal(5, (size[0], 2 * size[1]), dtype)
    torch.autograd.backward(outs, (grad,) if join else grad.chunk(2, 1) if size[1] else (grad, grad))
    a, b, t, beta = args
    grad_y, grad_a = grad.flip(1)[:, size[1] :], grad.flip(1)[:, : size[1]]
    assert torch.equal(a.grad, grad_a)
    assert torch.equal(b.grad, grad_y)
    assert torch.equal(t.grad, beta.detach()[1] * grad_y)
    inner = t.detach() if exact else t.detach().round()
    terms = (grad_y.double() * inner.double()).cpu().numpy()
    assert beta.grad[[0, 2]].tolist() == [0.0, 0.0]
    limit = 2e-6 if dtype is torch.float32 else 1e-14
    assert abs(beta.grad[1].item() - terms.sum()) <= limit * np.abs(terms).sum()


def test_strided_rows(backend: str) -> None:
    """Halves of a wider tensor and transposed ones are read as they lie."""
    wide = inputs.normal(0, (6, 9), torch.float32)
    t = inputs.normal(1, (3, 6), torch.float32).t()
    beta = torch.ones(1)
    got = rounding_coupling_mirrored(wide[:, :3], wide[:, 6:], t, beta, 0, lattice="exact", join=True)
    copies = [value.contiguous() for value in (wide[:, :3], wide[:, 6:], t)]
    assert torch.equal(got, rounding_coupling_mirrored(*copies, beta, 0, lattice="exact", join=True))


@pytest.mark.parametrize(
    ("beta", "index", "error", "text"),
    [
        (torch.zeros(()), 1, ValueError, r"beta: got shape \(\) and index 1"),
        (torch.zeros(1), 1, ValueError, r"beta: got shape \(1,\) and index 1"),
        (torch.zeros(3), "0", TypeError, "index: got str, expected an int"),
        (torch.zeros(3), True, TypeError, "index: got bool, expected an int"),
    ],
)
def test_a_place_that_is_not_there(backend: str, beta: torch.Tensor, index, error: type[Exception], text: str) -> None:
    x = torch.ones(2, 3)
    with pytest.raises(error, match=text):
        rounding_coupling_mirrored(x, x, x, beta, index, lattice="exact")
