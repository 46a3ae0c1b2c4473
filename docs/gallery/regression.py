# %% [markdown]
# # Regression with uncertainty
#
# A curve with noise that grows to the right, and a gap without data. A hybrid model predicts a mean and a standard
# deviation for each input, and its $\log p(x)$ says whether the input resembles what it was trained on.

# %%
import matplotlib.pyplot as plt
import torch

from hybridkern import flows, hybrid, lab
from hybridkern.hybrid import heads, objectives

torch.manual_seed(0)
x = torch.cat([-1.5 + 0.4 * torch.randn(500, 1), 1.2 + 0.35 * torch.randn(500, 1)])


def noise(x):
    return 0.05 + 0.25 * torch.sigmoid(3 * x)


y = (torch.sin(2.5 * x) + noise(x) * torch.randn_like(x))[:, 0]

# %% [markdown]
# `heads.Gaussian` with `noise="input"` reads mean and deviation from the latents by a small network. The objective is
# $\log p(y \mid x) + \log p(x)$: here the density matters as much as the prediction.

# %%
flow = flows.NSF(1, layers=3, bins=12, bound=4.0, hidden=(16,))
head = heads.Gaussian(1, noise="input", hidden=(32, 32))
model = hybrid.HybridModel(flow, head)
history = lab.fit(model, x, y, objective=objectives.Weighted(1.0), epochs=90, batch_size=100, lr=1e-2, progress=False)
print(history)

# %% tags=["thumbnail"]
at = torch.linspace(-3.2, 2.8, 400)[:, None]
with torch.no_grad():
    z, log_px, prediction = model(at)
mean, std = head.mean(prediction), head.std(prediction)

figure, (curve, density) = plt.subplots(
    2, 1, figsize=(7.0, 4.6), layout="constrained", sharex=True, height_ratios=(2.4, 1)
)
curve.scatter(x, y, s=5, color="0.6", linewidths=0, label="data")
curve.plot(at, mean, color="#1f5fa8", label="mean")
curve.fill_between(
    at[:, 0], mean - 2 * std, mean + 2 * std, color="#1f5fa8", alpha=0.2, linewidth=0, label="two deviations"
)
curve.plot(at, torch.sin(2.5 * at), color="#b3261e", linestyle="--", linewidth=1, label="truth")
curve.set(ylabel="y", ylim=(-2.2, 2.2))
curve.legend(frameon=False, ncols=4, loc="upper center")
density.fill_between(at[:, 0], log_px.exp(), color="#3b7d3a", alpha=0.35, linewidth=0)
density.set(xlabel="x", ylabel="p(x)", xlim=(-3.2, 2.8))
plt.show()
# %% [markdown]
# Where there are data, the band is as wide as the noise. In the gap and beyond the ends it still draws a band, as
# every regression does; but there the density is low, and that can be asked:

# %%
new = torch.cat([-1.5 + 0.4 * torch.randn(2000, 1), 1.2 + 0.35 * torch.randn(2000, 1)])
truth = (torch.sin(2.5 * new) + noise(new) * torch.randn_like(new))[:, 0]
with torch.no_grad():
    prediction = model(new).prediction
    lowest = model.log_prob(x).quantile(0.01)
inside = (truth - head.mean(prediction)).abs() < 1.96 * head.std(prediction)
print(f"new rows inside of their 95 % bands: {inside.double().mean():.1%}")
for value in (-1.5, 0.0, 1.2, 3.5):
    log_px = model.log_prob(torch.tensor([[value]])).item()
    print(f"x = {value:4.1f}: log p(x) {log_px:7.2f} nats", "" if log_px >= lowest else "- no such data were seen")

# %% [markdown]
# [Regression](../regression.md) is about a table with ten columns, and what it takes to do better than least squares.
