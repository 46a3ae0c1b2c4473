# %% [markdown]
# # Digits: draw, classify, reject
#
# One model of scikit-learn's handwritten digits does three things: it draws digits of a class, it classifies, and it
# says which pictures are not digits at all.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits, load_sample_image

from hybridkern import distributions, flows, hybrid, lab
from hybridkern.hybrid import metrics, objectives
from hybridkern.transforms import dequantize

torch.manual_seed(0)
pixels, labels = (torch.tensor(values) for values in load_digits(return_X_y=True))
images = pixels.clamp(max=15).to(torch.uint8).view(-1, 1, 8, 8)  # 1797 pictures of 8 x 8 pixels, grey values 0 to 15
order = torch.randperm(len(images))
train, test = order[:1400], order[1400:]

# %% [markdown]
# Grey values are whole numbers and the flow's are real, so uniform noise is added to them (`dequantize`); here three
# times to each picture, which makes the training set larger. The base of the flow has one Gaussian per class, and the
# head `Bayes` reads the class off it: $p(y \mid x)$ and $p(x)$ are two views of one joint density $p(x, y)$.

# %%
x = torch.cat([dequantize(images[train], 4) for _ in range(3)])
y = labels[train].repeat(3)
flow = flows.Glow((1, 8, 8), levels=2, steps=4, hidden=48)
flow.base = distributions.ClassGaussians(64, classes=10)
model = hybrid.HybridModel(flow, hybrid.heads.Bayes(flow.base))
objective = objectives.Weighted(1.0, per_dimension=True)
print(lab.fit(model, x, y, objective=objective, epochs=10, batch_size=100, lr=4e-3, progress=False))

# %% [markdown]
# ## Draw
#
# Ten samples of each class, a class in each row, at a temperature of 0.85.

# %% tags=["thumbnail"]
rows = torch.stack([model.sample_of_class(label, 10, temperature=0.85) for label in range(10)])
framed = torch.nn.functional.pad(rows[:, :, 0], (1, 1, 1, 1), value=0.5)
sheet = framed.permute(0, 2, 1, 3).reshape(100, 100)
figure, axes = plt.subplots(figsize=(4.0, 4.0), layout="constrained")
axes.imshow(sheet, cmap="gray", vmin=-0.5, vmax=0.5, interpolation="nearest")
axes.set_axis_off()

# %% [markdown]
# ## Classify

# %%
shown = dequantize(images[test], 4)
error = (model.predict(shown) != labels[test]).double().mean()
print(f"error on {len(test)} test pictures: {error:.1%}")

# %% [markdown]
# ## Reject
#
# Pictures that are not digits are here patches of a photograph, shrunk to the same size and sixteen grey values.
# `SelectiveClassifier` answers where $\log p(x)$ is above a threshold, which it takes from the training pictures.

# %%
photo = torch.tensor(load_sample_image("china.jpg")).double().mean(2)
patches = (
    torch.nn.functional.avg_pool2d(photo[None, None], 5)[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).reshape(-1, 1, 8, 8)
)
foreign = dequantize((patches / 16).to(torch.uint8), 4)

with torch.no_grad():
    inside, outside = model.log_prob(shown), model.log_prob(foreign)
print(f"AUROC of log p(x): {metrics.auroc(inside, outside):.4f}")

selective = hybrid.SelectiveClassifier(model, slack=-20.0).fit([(dequantize(images[train], 4), labels[train])])
print(f"rejected: {(selective.predict(shown) == -1).double().mean():.1%} of the digits, ", end="")
print(f"{(selective.predict(foreign) == -1).double().mean():.1%} of the patches")

figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
bins = torch.linspace(-400, 120, 60)
axes.hist(inside.clamp(min=-400), bins, alpha=0.6, density=True, color="#1f5fa8", label="test digits")
axes.hist(outside.clamp(min=-400), bins, alpha=0.6, density=True, color="#b3261e", label="patches of a photograph")
axes.axvline(selective.threshold.item(), color="black", linestyle="--", linewidth=1, label="threshold")
axes.set(xlabel="log p(x), nats (leftmost bar: all below)", yticks=[])
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# [Classify and reject](../selective.md) has the formulas, and where raw $\log p(x)$ fails.
