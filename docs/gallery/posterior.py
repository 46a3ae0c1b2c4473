# %% [markdown]
# # A posterior from simulations
#
# A simulator makes data from parameters. Given data, which parameters may have made them? A conditional flow learns
# $p(\theta \mid x)$ from simulated pairs, without a likelihood. This is the example of two moons: the posterior has
# two crescents.

# %%
import math

import matplotlib.pyplot as plt
import torch

from hybridkern import flows, lab

torch.manual_seed(0)


def simulate(theta):
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    ring = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)
    return ring + torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)


theta = 2 * torch.rand(10000, 2) - 1  # the prior: uniform in a square
x = simulate(theta)

# %% [markdown]
# The flow is over $\theta$; the data are its `context`.

# %%
flow = flows.NSF(2, layers=5, bins=8, bound=3.0, hidden=(48, 48), context=2)
history = lab.fit(flow, 2 * theta, context=x / x.std(0), epochs=30, batch_size=500, lr=5e-3, progress=False)
print(history)

# %% [markdown]
# Trained once, the flow serves every observation. Here are three, and for the first one an almost exact posterior: the
# parameters of those of two million simulations whose data came closest.

# %% tags=["thumbnail"]
observations = torch.tensor([[0.0, 0.0], [-0.4, 0.3], [-0.2, -0.6]])
samples = flow.sample(4000, context=observations / x.std(0)) / 2  # (3, 4000, 2)

many = 2 * torch.rand(2_000_000, 2) - 1
near = (simulate(many) - observations[0]).norm(dim=1).argsort()[:2000]

figure, panels = plt.subplots(1, 4, figsize=(12.0, 3.2), layout="constrained")
for axes, drawn, observed in zip(panels, samples, observations.tolist(), strict=False):
    axes.scatter(*drawn.T, s=2, color="#1f5fa8", linewidths=0)
    axes.set_title(f"x = ({observed[0]:g}, {observed[1]:g})")
panels[3].scatter(*many[near].T, s=2, color="#3b7d3a", linewidths=0)
panels[3].set_title("nearest simulations, x = (0, 0)")
for axes in panels:
    axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel=r"$\theta_1$")
panels[0].set_ylabel(r"$\theta_2$")
plt.show()
# %% [markdown]
# Data simulated from the samples should fall on the observation. They do, within the width of the crescent:

# %%
again = simulate(samples[0])
print(f"data of the samples: {again.mean(0).tolist()[0]:.3f}, {again.mean(0).tolist()[1]:.3f}")
print(f"mean distance from the observation: {again.norm(dim=1).mean():.3f}; of the prior's: {x.norm(dim=1).mean():.3f}")

# %% [markdown]
# sbi's estimators can run on the same kernels: [posteriors](../posteriors.md).
