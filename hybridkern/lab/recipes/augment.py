"""Augmentation of images that lie in memory as rows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(x: Tensor, shape: tuple[int, ...], probability: float) -> Tensor:
    """Each image moved, with this probability, by -1, 0 or 1 pixel down and across; what comes in at an edge is 0.

    All nine moves are equally probable, the one by nothing among them. The draws are of torch's global generator.

    Args:
        x: images ``(B, prod(shape))``.
        shape: ``(H, W)`` or ``(H, W, C)``, in the order that ``x`` holds them.
        probability: of moving an image, from 0 to 1.

    Returns:
        ``(B, prod(shape))``, values in the units of ``x``.
    """
    height, width = shape[:2]
    padded = F.pad(x.view(len(x), height, width, math.prod(shape[2:])), (0, 0, 1, 1, 1, 1))
    here = x.device
    moves = torch.rand(len(x), 1, device=here) < probability
    top, left = torch.where(moves, torch.randint(3, (len(x), 2), device=here), 1).unbind(1)
    rows = top[:, None] + torch.arange(height, device=here)
    columns = left[:, None] + torch.arange(width, device=here)
    example = torch.arange(len(x), device=here)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]].view_as(x)


# The strongest distortion: degrees, factor on the size either way, and shear.
_TURN, _SIZE, _SHEAR = 25.0, 1.2, 0.3


def distorted(x: Tensor, shape: tuple[int, ...], strength: float, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 25 degrees, scaled by up to 1.2 either way and sheared by up to 0.3, about its middle.

    Uniform draws, each of these times ``strength``; bilinear, rounded to whole grey values; what comes in at an edge
    repeats the edge.

    Args:
        x: whole grey values ``(B, prod(shape))``, any dtype.
        shape: ``(H, W)`` or ``(H, W, C)``, in the order that ``x`` holds them.
        strength: from 0, which changes nothing, to 1.
        generator: of the draws, four an image, on the device of ``x``.

    Returns:
        ``(B, prod(shape))``, dtype and units of ``x``.
    """
    height, width = shape[:2]
    turn, size, down, across = (
        strength * (2 * torch.rand((4, len(x)), generator=generator, device=x.device) - 1)
    ).unbind(0)
    angle, factor = turn * math.radians(_TURN), torch.exp(size * math.log(_SIZE))
    # grid_sample's coordinates run from -1 to 1 along either side; an image that is not square must not be stretched
    aspect = width / height
    rotation = torch.stack([angle.cos(), -angle.sin() / aspect, angle.sin() * aspect, angle.cos()], 1).view(-1, 2, 2)
    shear = torch.eye(2, device=x.device).repeat(len(x), 1, 1)
    shear[:, 0, 1], shear[:, 1, 0] = _SHEAR * across / aspect, _SHEAR * down * aspect
    matrices = torch.cat([rotation @ shear * factor[:, None, None], factor.new_zeros(len(x), 2, 1)], 2)
    images = x.view(len(x), height, width, math.prod(shape[2:])).permute(0, 3, 1, 2).float()
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1).reshape(x.shape).round().to(x.dtype)


def translated(x: Tensor, shape: tuple[int, ...], moves: Tensor) -> Tensor:
    """Each image moved by a number of pixels of its own; what comes in at an edge repeats the edge.

    Args:
        x: images ``(B, prod(shape))``, any dtype.
        shape: ``(H, W)`` or ``(H, W, C)``, in the order that ``x`` holds them.
        moves: integers ``(B, 2)``, pixels down and to the right, each smaller in magnitude than the image is large.

    Returns:
        ``(B, prod(shape))``, dtype and units of ``x``.
    """
    height, width = shape[:2]
    down, right = moves.unbind(1)
    rows = (torch.arange(height, device=x.device) - down[:, None]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=x.device) - right[:, None]).clamp_(0, width - 1)
    pixels = x.view(len(x), height * width, math.prod(shape[2:]))
    index = (rows[:, :, None] * width + columns[:, None, :]).view(len(x), -1)
    return pixels.gather(1, index[:, :, None].expand_as(pixels)).view_as(x)
