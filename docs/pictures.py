"""Draws the picture of README.md and of the start page: ``python docs/pictures.py``; half a minute on one core."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern import flows, hybrid
from hybridkern.hybrid import objectives

IMAGES = Path(__file__).parent / "images"
STEPS = 1500
COLOURS = ("#b3261e", "#1f5fa8")


def half_moons(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, their classes, and how far along its half circle each lies."""
    classes, angle = torch.arange(size) % 2, math.pi * torch.rand(size)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.where(classes[:, None] == 0, x, torch.tensor([1.0, 0.5]) - x)
    return x + 0.1 * torch.randn(size, 2), classes, angle


def six_labels(classes: Tensor, angle: Tensor) -> Tensor:
    """Three labels per class, spread along its moon; -1 elsewhere."""
    y = torch.full((len(classes),), -1)
    for label in (0, 1):
        rows = torch.nonzero(classes == label)[:, 0]
        places = (torch.tensor([0.17, 0.5, 0.83]) * len(rows)).long()
        y[rows[angle[rows].argsort()][places]] = label
    return y


def train(x: Tensor, y: Tensor) -> hybrid.HybridModel:
    """The loop of docs/few-labels.md, longer and with less noise at its end."""
    flow = flows.NSF(2, layers=6, bins=8, bound=4.0, hidden=(64, 64))
    model = hybrid.HybridModel(flow, hybrid.heads.Categorical(2, classes=2, hidden=(32,)))
    objective = objectives.SemiSupervised(objectives.Weighted(1.0), entropy_weight=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        moved = x + 0.1 * (1 - 0.6 * step / STEPS) * torch.randn_like(x)
        model.loss(moved, y, objective).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def draw(model: hybrid.HybridModel, x: Tensor, y: Tensor) -> Figure:
    """Data, density with the boundary, samples."""
    across, up = torch.linspace(-1.7, 2.7, 330), torch.linspace(-1.2, 1.7, 220)
    grid = torch.cartesian_prod(up, across).flip(1)
    with torch.no_grad():
        log_px = model.log_prob(grid).view(len(up), -1)
        chance = model.predict_proba(grid)[:, 1].view(len(up), -1)
        samples = model.sample(1000)
        guessed = model.predict(samples)
    figure = Figure(figsize=(13.5, 3.3), layout="constrained")
    data, density, drawn = figure.subplots(1, 3)
    colours = ListedColormap(list(COLOURS))
    data.scatter(*x[y < 0].T, s=5, color="#9aa0a6", linewidths=0)
    data.scatter(*x[y >= 0].T, s=90, c=y[y >= 0], cmap=colours, edgecolors="white", linewidths=1.2)
    density.contourf(across, up, log_px.exp(), levels=24, cmap="magma")
    density.contour(across, up, chance, levels=[0.5], colors="white", linewidths=1.4)
    drawn.scatter(*samples.T, s=5, c=guessed, cmap=colours, linewidths=0)
    titles = ("6 labels, 994 points without", "p(x), and the boundary of p(y|x)", "samples, coloured by the model")
    for axes, title in zip((data, density, drawn), titles, strict=True):
        axes.set(xlim=(-1.7, 2.7), ylim=(-1.2, 1.7), aspect="equal", xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(False)
    return figure


def main() -> None:
    """Draws the pictures."""
    torch.manual_seed(0)
    x, classes, angle = half_moons(1000)
    y = six_labels(classes, angle)
    model = train(x, y)
    new, truth, _ = half_moons(2000)
    print(f"error on new points: {(model.predict(new) != truth).double().mean():.2%}")
    draw(model, x, y).savefig(IMAGES / "moons.png", dpi=144)


if __name__ == "__main__":
    main()
