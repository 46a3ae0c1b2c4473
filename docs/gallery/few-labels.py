# %% [markdown]
# # Six labels are enough
#
# A thousand points lie on two half moons. Six of them have a label. A classifier that sees the six alone must guess; a
# hybrid model also learns where the other 994 lie, and puts its boundary between the moons.

# %%
import math

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

from hybridkern import flows, hybrid
from hybridkern.hybrid import heads, objectives

torch.manual_seed(0)


def half_moons(size):
    moon, angle = torch.arange(size) % 2, math.pi * torch.rand(size)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.where(moon[:, None] == 0, x, torch.tensor([1.0, 0.5]) - x)
    return x + 0.1 * torch.randn(size, 2), moon, angle


x, moon, angle = half_moons(1000)
y = torch.full((1000,), -1)  # -1: no label
for label in (0, 1):
    rows = torch.nonzero(moon == label)[:, 0]
    for place in (0.17, 0.5, 0.83):  # along the moon
        y[rows[angle[rows].argsort()][int(place * len(rows))]] = label
print("labels:", (y >= 0).sum().item(), "of", len(y))

# %% [markdown]
# `SemiSupervised` trains $\log p(y \mid x) + \log p(x)$ where there is a label and $\log p(x)$ elsewhere. There it
# also asks for confident predictions (a low entropy of $p(y \mid x)$), which moves the boundary away from the points.
# A little noise on the points in each step keeps the six labelled ones from becoming six peaks.

# %%
STEPS = 450


def train(objective, rows):
    torch.manual_seed(1)
    flow = flows.RealNVP(2, layers=6, hidden=48)
    model = hybrid.HybridModel(flow, heads.Categorical(2, classes=2, hidden=(32,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.loss(x[rows] + 0.1 * torch.randn(len(x[rows]), 2), y[rows], objective).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return model.eval()


few = train(objectives.Weighted(1.0), y >= 0)
model = train(objectives.SemiSupervised(objectives.Weighted(1.0), entropy_weight=1.0), slice(None))

# %% tags=["thumbnail"]
across, up = torch.linspace(-1.7, 2.7, 220), torch.linspace(-1.2, 1.7, 150)
grid = torch.cartesian_prod(up, across).flip(1)
red_and_blue = ListedColormap(["#b3261e", "#1f5fa8"])
figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.2), layout="constrained")
for axes, fitted, title in ((panels[0], few, "six labels alone"), (panels[1], model, "and 994 points without")):
    chance = fitted.predict_proba(grid)[:, 1].view(150, 220)
    axes.contourf(across, up, chance, levels=20, cmap="RdBu", alpha=0.6)
    axes.contour(across, up, chance, levels=[0.5], colors="black", linewidths=1.2)
    if fitted is model:
        axes.scatter(*x.T, s=4, color="0.35", linewidths=0)
    axes.scatter(*x[y >= 0].T, s=80, c=y[y >= 0], cmap=red_and_blue, edgecolors="white", linewidths=1.2)
    axes.set(title=title, aspect="equal", xticks=[], yticks=[], xlim=(-1.7, 2.7), ylim=(-1.2, 1.7))

# %% [markdown]
# On new points of the same moons:

# %%
new, truth, _ = half_moons(4000)
for name, fitted in (("six labels alone", few), ("and 994 points without", model)):
    print(f"{name:>24}: error {(fitted.predict(new) != truth).double().mean():.1%}")

# %% [markdown]
# How much it helps depends on where the labels lie: six at random places may leave one end of a moon to guesswork.
# [Objectives](../objectives.md#unlabelled-data) says what each part of the loop contributes.
