"""Moved images: which moves there are, how often, and that torch's generator alone decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hybridkern.lab.recipes.augment import distorted, shifted


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


def _distorted_by_hand(image: np.ndarray, turn: float, size: float, down: float, across: float) -> np.ndarray:
    """Bilinear, about the middle: turned by 25 degrees, scaled by 1.2 and sheared by 0.3, each times a draw."""
    height, width = image.shape[:2]
    angle = math.radians(25) * turn
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = 1.2**size * turned @ np.array([[1.0, 0.3 * across], [0.3 * down, 1.0]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            x, y = np.clip(matrix @ (np.array([column, row]) - middle) + middle, 0, [width - 1, height - 1])
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            for i, share_y in ((top, top + 1 - y), (top + 1, y - top)):
                for j, share_x in ((left, left + 1 - x), (left + 1, x - left)):
                    out[row, column] += share_x * share_y * image[i, j]
    return out


@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (7, 4, 3)])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_distorted_is_what_its_draws_say(shape: tuple[int, ...], strength: float) -> None:
    x = torch.randint(0, 256, (5, math.prod(shape)), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    draws = strength * (2 * torch.rand((4, 5), generator=torch.Generator().manual_seed(2)).double().numpy() - 1)
    got = distorted(x, shape, strength, torch.Generator().manual_seed(2))
    assert got.dtype is torch.uint8
    expected = [_distorted_by_hand(one.numpy().astype(float).reshape(shape), *draws[:, i]) for i, one in enumerate(x)]
    # rounded to whole numbers, from positions in float32
    np.testing.assert_allclose(got.numpy(), np.reshape(expected, got.shape), rtol=0, atol=0.501)
    assert torch.equal(got, x) == (strength == 0)
