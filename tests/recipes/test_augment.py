"""Moved images: which moves there are, how often, and that torch's generator alone decides."""

from __future__ import annotations

import pytest
import torch

from hybridkern.recipes.augment import shifted


def _moved_by_hand(image: torch.Tensor, down: int, across: int) -> torch.Tensor:
    height, width = image.shape[:2]
    moved = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + across < width:
                moved[row + down, column + across] = image[row, column]
    return moved


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2), (2, 2)])
def test_nine_moves_equally_often(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    image = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
    expected = [_moved_by_hand(image, down, across).flatten() for down in (-1, 0, 1) for across in (-1, 0, 1)]
    n = 9000
    got = shifted(image.reshape(1, -1).expand(n, -1).contiguous(), shape, 1.0)
    counts = torch.stack([(got == moved).all(1).sum() for moved in expected])
    assert counts.sum() == n
    assert ((counts - n / 9).abs() < 5 * (n / 9) ** 0.5).all()


def test_probability_of_moving() -> None:
    torch.manual_seed(0)
    x = 1 + torch.rand(9000, 12)
    assert torch.equal(shifted(x, (3, 4), 0.0), x)
    moved = (shifted(x, (3, 4), 0.5) != x).any(1).double().mean().item()
    assert moved == pytest.approx(0.5 * 8 / 9, abs=0.03)  # one move in nine is by nothing


def test_is_a_function_of_the_generator() -> None:
    x = torch.rand(50, 12)
    torch.manual_seed(3)
    first = shifted(x, (3, 4), 0.5)
    assert not torch.equal(shifted(x, (3, 4), 0.5), first)
    torch.manual_seed(3)
    assert torch.equal(shifted(x, (3, 4), 0.5), first)
    assert shifted(x[:0], (3, 4), 0.5).shape == (0, 12)
