# %% [markdown]
# # Density of points in the plane
#
# A flow turns a normal distribution into the distribution of the data, and says what density each point has. Here it
# learns two spirals from 4000 points.

# %%
import math

import matplotlib.pyplot as plt
import torch

from hybridkern import flows, lab

torch.manual_seed(0)
angle = 1.5 * math.pi * (1 + 2 * torch.rand(4000).sqrt()) / 2
arm = torch.arange(4000) % 2
x = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] / 3 * (1 - 2 * arm)[:, None]
x = x + 0.08 * torch.randn_like(x)

# %% [markdown]
# `flows.NSF` is made of splines: each layer bends every coordinate by a curve that depends on the other one. Outside
# of `bound` it is the identity, so the data should lie within.

# %%
flow = flows.NSF(2, layers=6, bins=8, bound=3.5, hidden=(64, 64))
history = lab.fit(flow, x, epochs=45, batch_size=400, lr=5e-3, progress=False)
print(history)

# %% [markdown]
# What it has learned: samples next to the data, and the density on a grid.

# %% tags=["thumbnail"]
side = torch.linspace(-3, 3, 240)
grid = torch.cartesian_prod(side, side).flip(1)
with torch.no_grad():
    density = flow.log_prob(grid).exp().view(240, 240)
samples = flow.sample(4000)

figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
for axes, points, title in ((panels[0], x, "data"), (panels[1], samples, "samples")):
    axes.scatter(*points.T, s=2, linewidths=0, color="#1f5fa8")
    axes.set_title(title)
panels[2].imshow(density, extent=(-3, 3, -3, 3), origin="lower", cmap="magma")
panels[2].set_title("density p(x)")
for axes in panels:
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])

# %% [markdown]
# A density sums to one over the plane. On this grid:

# %%
total = density.sum().item() * (6 / 239) ** 2
print(f"sum of p(x) times the area of a cell: {total:.3f}")
assert abs(total - 1) < 0.03

# %% [markdown]
# The flow is a bijection, so each point has latents, and the inverse gives the point back.

# %%
with torch.no_grad():
    z, log_det = flow(x)
    back, _ = flow.inverse(z)
print(f"largest error of the round trip: {(back - x).abs().max():.1e}")

figure, axes = plt.subplots(figsize=(3.6, 3.3), layout="constrained")
axes.scatter(*z.T, s=2, c=angle, cmap="viridis", linewidths=0)
axes.set(title="latents, coloured along the spirals", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
plt.show()
