"""A permutation, its inverse, and gradients that autograd's own indexing confirms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hybridkern.transforms import Permutation


def test_permutes_and_puts_back() -> None:
    torch.manual_seed(0)
    permutation = Permutation(6)
    x = torch.randn(3, 6, 2)
    y = permutation(x)
    assert torch.equal(y, x[:, permutation.order]) and not torch.equal(y, x)
    assert torch.equal(permutation(y, inverse=True), x)


def test_gradients() -> None:
    torch.manual_seed(0)
    permutation = Permutation(6)
    x = torch.randn(3, 6, requires_grad=True)
    weight = torch.randn(3, 6)
    (expected,) = torch.autograd.grad((x[:, permutation.order] * weight).sum(), x)
    assert torch.equal(torch.autograd.grad((permutation(x) * weight).sum(), x)[0], expected)
    (expected,) = torch.autograd.grad((x[:, permutation.order.argsort()] * weight).sum(), x)
    assert torch.equal(torch.autograd.grad((permutation(x, inverse=True) * weight).sum(), x)[0], expected)


def test_order_is_saved() -> None:
    assert "order" in Permutation(6).state_dict()


def test_averages_of_permutations_are_refused() -> None:
    """Averages of models with their buffers truncate these integers."""
    permutation = Permutation(8)
    permutation(torch.zeros(2, 8))
    permutation.order.copy_(permutation.order // 2)
    with pytest.raises(ValueError, match=r"order: got \[.*\], expected a permutation"):
        permutation(torch.zeros(2, 8))


def test_writes_that_have_no_version_are_seen() -> None:
    permutation, x = Permutation(3), torch.randn(2, 3)
    permutation(x)
    permutation.order.data.copy_(torch.tensor([2, 0, 1]))
    assert torch.equal(permutation(x), x[:, [2, 0, 1]])
    permutation.order.data.copy_(torch.tensor([2, 0, 0]))
    with pytest.raises(ValueError, match="expected a permutation"):
        permutation(x)


def test_another_buffer_in_its_place_is_looked_at() -> None:
    permutation = Permutation(3)
    permutation(torch.zeros(2, 3))
    wrong = {"order": torch.tensor([1, 1, 2])}
    permutation.load_state_dict(wrong, assign=True)
    with pytest.raises(ValueError, match="expected a permutation"):
        permutation(torch.zeros(2, 3))


def test_made_in_inference_mode() -> None:
    with torch.inference_mode():
        permutation = Permutation(3)
    x = torch.randn(2, 3)
    assert torch.equal(permutation(permutation(x), inverse=True), x)


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev], ids=["jacfwd", "jacrev"])
def test_what_was_seen_inside_a_transform_outlives_it(transform: Callable[..., Callable[..., object]]) -> None:
    """A tensor of a transform is none outside of it, and an error in one that stands lower."""
    permutation, x = Permutation(3), torch.randn(2, 3)
    transform(permutation)(x)
    assert not torch._C._functorch.is_functorch_wrapped_tensor(permutation._known)
    assert torch.equal(permutation(x), x[:, permutation.order])
