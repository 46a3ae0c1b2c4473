"""The fused half coupling of small integer flows: bit for bit what its parts give, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hybridkern
from hybridkern import ops
from tests.ops import inputs

SIZES = [(1, 1), (7, 5), (64, 32), (3, 0), (0, 4), (700, 33)]
KINDS = [torch.float32, torch.float64]


def arguments(rows: int, half: int, dtype: torch.dtype) -> list[torch.Tensor]:
    a, b = (inputs.normal(i, (rows, half), dtype, scale=9.0).round() for i in range(2))
    t = inputs.normal(2, (rows, half), dtype, scale=3.0)
    return [value.requires_grad_() for value in (a, b, t, torch.tensor([0.3, 1.75, -0.6], dtype=dtype))]


def expected(args: list[torch.Tensor], lattice: str) -> np.ndarray:
    a, b, t, beta = (value.detach().cpu().numpy() for value in args)
    step = np.rint(beta[1] * t) if lattice == "exact" else beta[1] * np.rint(t)
    return np.concatenate((a, b + step), 1)[:, ::-1]


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_value(backend: str, size: tuple[int, int], dtype: torch.dtype, lattice: str) -> None:
    args = arguments(*size, dtype)
    joined = ops.rounding_coupling_mirrored(*args, 1, lattice=lattice, join=True)
    halves = ops.rounding_coupling_mirrored(*args, 1, lattice=lattice)
    # beta * round(t) may be fused with the addition: one rounding less
    bound = {"exact": 0.0, "tutorial": 4 * torch.finfo(dtype).eps * 40}[lattice]
    assert joined.shape == (size[0], 2 * size[1])
    np.testing.assert_allclose(joined.detach().cpu().numpy(), expected(args, lattice), rtol=0, atol=bound)
    assert torch.equal(torch.cat(halves, 1), joined)


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("join", [True, False])
def test_straight_through_gradient(
    backend: str, size: tuple[int, int], dtype: torch.dtype, lattice: str, join: bool
) -> None:
    args = arguments(*size, dtype)
    out = ops.rounding_coupling_mirrored(*args, 1, lattice=lattice, join=join)
    outs = (out,) if join else out
    grad = inputs.normal(5, (size[0], 2 * size[1]), dtype)
    torch.autograd.backward(outs, (grad,) if join else grad.chunk(2, 1) if size[1] else (grad, grad))
    a, b, t, beta = args
    grad_y, grad_a = grad.flip(1)[:, size[1] :], grad.flip(1)[:, : size[1]]
    assert torch.equal(a.grad, grad_a)
    assert torch.equal(b.grad, grad_y)
    assert torch.equal(t.grad, beta.detach()[1] * grad_y)
    inner = t.detach() if lattice == "exact" else t.detach().round()
    terms = (grad_y.double() * inner.double()).cpu().numpy()
    assert beta.grad[[0, 2]].tolist() == [0.0, 0.0]
    limit = 2e-6 if dtype is torch.float32 else 1e-14
    assert abs(beta.grad[1].item() - terms.sum()) <= limit * np.abs(terms).sum()


def test_only_one_half_used(backend: str) -> None:
    args = arguments(5, 4, torch.float32)
    first, _ = ops.rounding_coupling_mirrored(*args, 1)
    first.sum().backward()
    assert torch.equal(args[1].grad, torch.ones(5, 4))
    assert torch.equal(args[0].grad, torch.zeros(5, 4))


def test_strided_rows(backend: str) -> None:
    """Halves of a wider tensor and transposed ones are read as they lie."""
    wide = inputs.normal(0, (6, 9), torch.float32)
    t = inputs.normal(1, (3, 6), torch.float32).t()
    beta = torch.ones(1)
    got = ops.rounding_coupling_mirrored(wide[:, :3], wide[:, 6:], t, beta, 0, join=True)
    copies = [value.contiguous() for value in (wide[:, :3], wide[:, 6:], t)]
    assert torch.equal(got, ops.rounding_coupling_mirrored(*copies, beta, 0, join=True))


@pytest.mark.parametrize("lattice", ["exact", "tutorial"])
def test_with_prior_equals_its_parts(backend: str, lattice: str) -> None:
    args = arguments(9, 5, torch.float32)
    prior = [inputs.normal(7, (1, 10), torch.float32), inputs.normal(8, (1, 10), torch.float32)]
    leaves = args + [value.requires_grad_() for value in prior]
    grads = inputs.normal(5, (9, 10), torch.float32), inputs.normal(6, (9,), torch.float32)
    fused = ops.rounding_coupling_mirrored_log_prob(*args, 1, *prior, lattice=lattice)
    z = ops.rounding_coupling_mirrored(*args, 1, lattice=lattice, join=True)
    parts = z, ops.discretized_logistic_log_prob(z, *prior, reduction="sum")
    assert all(torch.equal(p, q) for p, q in zip(fused, parts, strict=True))
    for got, wanted in zip(
        torch.autograd.grad(fused, leaves, grads), torch.autograd.grad(parts, leaves, grads), strict=True
    ):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_takes_the_reference(backend: str, dtype: torch.dtype) -> None:
    """The kernels read float32 and float64 only; handing them anything narrower would read past its end."""
    args = [inputs.normal(i, (9, 6), torch.float32, scale=3.0).round().to(dtype) for i in range(3)]
    beta, prior = torch.tensor([0.5, 1.75], dtype=dtype), torch.zeros(1, 12, dtype=dtype)
    if backend == "cpp":
        with pytest.raises(RuntimeError, match=f"'cpp' was chosen and has no kernel of .* in {dtype}"):
            ops.rounding_coupling_mirrored_log_prob(*args, beta, 1, prior, prior)
    with hybridkern.use_backend("auto"):
        z, log_p = ops.rounding_coupling_mirrored_log_prob(*args, beta, 1, prior, prior)
        expected = ops.discretized_logistic_log_prob(z, prior, prior, reduction="sum")
    a, b, t = (value.float() for value in args)
    assert torch.equal(z.float(), torch.cat((a, (b + torch.round(1.75 * t)).to(dtype).float()), 1).flip(1))
    assert torch.equal(log_p, expected)


def test_with_prior_of_which_one_output_is_used(backend: str) -> None:
    args = arguments(9, 5, torch.float32)
    prior = [torch.zeros(1, 10, requires_grad=True), torch.zeros(1, 10, requires_grad=True)]
    z, log_p = ops.rounding_coupling_mirrored_log_prob(*args, 1, *prior)
    (only_z,) = torch.autograd.grad(z.sum(), args[1], retain_graph=True)
    assert torch.equal(only_z, torch.ones(9, 5))
    (by_prior,) = torch.autograd.grad(log_p.sum(), args[1])
    y = z.detach()[:, :5].flip(1)
    assert torch.equal(by_prior.sign(), -y.sign())


def test_compiled_equals_eager(backend: str) -> None:
    torch._dynamo.reset()
    args = arguments(6, 4, torch.float32)
    prior = [torch.zeros(1, 8, requires_grad=True), torch.ones(1, 8, requires_grad=True)]

    def flow(a, b, t, beta, mean, log_scale):
        a, b = ops.rounding_coupling_mirrored(a, b, t, beta, 0)
        return ops.rounding_coupling_mirrored_log_prob(a, b, t, beta, 1, mean, log_scale)

    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    with hybridkern.use_backend(backend):
        for got, wanted in zip(compiled(*args, *prior), flow(*args, *prior), strict=True):
            torch.testing.assert_close(got, wanted)
        leaves = [*args, *prior]
        results = [torch.autograd.grad([v.sum() for v in f(*leaves)], leaves) for f in (compiled, flow)]
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)
