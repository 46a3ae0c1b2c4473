# %% [markdown]
# # Glow and temperature
#
# A Glow is a flow for images: 1x1 convolutions and couplings on several scales. Here it learns handwritten digits. Its
# samples can be drawn at a *temperature*: the latents' spread is multiplied by it.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from hybridkern import flows, lab
from hybridkern.hybrid import metrics
from hybridkern.transforms import dequantize

torch.manual_seed(0)
images = torch.tensor(load_digits().data).clamp(max=15).to(torch.uint8).view(-1, 1, 8, 8)
train, test = images[:1500], images[1500:]

flow = flows.Glow((1, 8, 8), levels=2, steps=6, hidden=64)
print(f"{sum(p.numel() for p in flow.parameters()):,} parameters")

# %% [markdown]
# `lab.fit` initializes actnorm from the data, and keeps the weights of the best epoch.

# %%
history = lab.fit(
    flow, dequantize(train, 4), validation=(dequantize(test, 4),), epochs=20, batch_size=100, lr=3e-3, progress=False
)
print(history)

# %% [markdown]
# The likelihood as bits per dimension: what a perfect entropy coder would need per pixel. A raw pixel takes 4.

# %%
with torch.no_grad():
    log_px = torch.stack([flow.log_prob(dequantize(test, 4)) for _ in range(5)]).mean(0)
bits = metrics.bits_per_dim(log_px, 64, bits=4)
print(f"test pictures: {bits.mean():.2f} bits per dimension")

# %% [markdown]
# One row per temperature, and the same random numbers in each row. At 0 there is only the picture of greatest density
# in latent space; at 1 the model's own distribution, with all of its mistakes.

# %% tags=["thumbnail"]
TEMPERATURES = (0.0, 0.3, 0.6, 0.8, 1.0)
rows = []
for temperature in TEMPERATURES:
    generator = torch.Generator().manual_seed(3)
    drawn = flow.sample(14, temperature=temperature, generator=generator)
    rows.append(drawn[:, 0].clamp(-0.5, 0.5))
figure, panels = plt.subplots(len(rows), 1, figsize=(8.0, 3.2), layout="constrained")
for axes, row, temperature in zip(panels, rows, TEMPERATURES, strict=True):
    axes.imshow(row.permute(1, 0, 2).reshape(8, -1), cmap="gray", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(f"{temperature:g}", rotation=0, ha="right", va="center")

# %% [markdown]
# Latents also give a way from one picture to another: the images of the straight line between two of them.

# %%
ends = dequantize(test[[3, 5, 8, 10]], 4), dequantize(test[[12, 20, 30, 41]], 4)
with torch.no_grad():
    first, last = (flow(x)[0] for x in ends)
    steps = [flow.inverse(torch.lerp(first, last, weight))[0] for weight in torch.linspace(0, 1, 12).tolist()]
sheet = torch.stack(steps, 1)[:, :, 0].clamp(-0.5, 0.5).permute(0, 2, 1, 3).reshape(4 * 8, -1)
figure, axes = plt.subplots(figsize=(8.0, 2.8), layout="constrained")
axes.imshow(sheet, cmap="gray", interpolation="nearest")
axes.set_axis_off()

# %% [markdown]
# `hybridkern sample RUN --temperature 0.7` does this for a run of the command line. [Glow and memory](../glow.md) says
# how the flow keeps its activations small.
