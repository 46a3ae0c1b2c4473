# %% [markdown]
# # Speed up a model of nflows
#
# `accelerate` swaps fused operators into a model of another library, in place. The model keeps its parameters, its
# state dict and its optimizer, and gives the same numbers within rounding.

# %%
import time

import matplotlib.pyplot as plt
import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)

from hybridkern.integrations import accelerate, undo

torch.set_num_threads(1)
torch.manual_seed(0)
DIM = 16


def network(inputs, outputs):
    return ResidualNet(inputs, outputs, hidden_features=32, num_blocks=1)


def spline(mask):
    return PiecewiseRationalQuadraticCouplingTransform(mask, network, num_bins=8, tails="linear", tail_bound=3.0)


def build(coupling):
    layers = []
    for index in range(6):
        layers += [RandomPermutation(DIM), coupling((torch.arange(DIM) + index) % 2)]
    return Flow(CompositeTransform(layers), StandardNormal([DIM]))


models = {"affine": build(lambda mask: AffineCouplingTransform(mask, network)), "spline": build(spline)}

# %% [markdown]
# What a training step costs: forward and backward of 512 rows, the fastest of several rounds.

# %%
x = torch.randn(512, DIM)


def milliseconds(model):
    found = []
    for _ in range(15):
        began = time.process_time()
        model.zero_grad()
        (-model.log_prob(x).mean()).backward()
        found.append(time.process_time() - began)
    return 1000 * min(found)


before = {name: milliseconds(model) for name, model in models.items()}
expected = {name: model.log_prob(x).detach() for name, model in models.items()}

# %% [markdown]
# One call for each model. It prints what became faster, and what stayed as it is.

# %%
for name, model in models.items():
    print(name, accelerate(model), sep="\n", end="\n\n")

# %%
for name, model in models.items():
    difference = (model.log_prob(x) - expected[name]).abs().max().item()
    print(f"{name}: largest difference of log p(x) {difference:.1e} nats, of values about {expected[name].mean():.0f}")

# %% tags=["thumbnail"]
after = {name: milliseconds(model) for name, model in models.items()}
figure, axes = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
for place, name in enumerate(models):
    bars = axes.barh([place + 0.2, place - 0.2], [before[name], after[name]], height=0.36, color=["0.6", "#1f5fa8"])
    axes.bar_label(bars, [f" nflows, {before[name]:.1f}", f" accelerated, {after[name]:.1f}"])
axes.set(yticks=range(len(models)), yticklabels=[f"{name} couplings" for name in models])
axes.set(xlabel="milliseconds per training step")
axes.spines[["top", "right"]].set_visible(False)
axes.margins(x=0.25)
for name in models:
    print(f"{name}: {before[name] / after[name]:.1f} times as fast")

# %% [markdown]
# `undo` gives the library's own classes back.

# %%
for model in models.values():
    undo(model)
print({type(layer).__module__.split(".")[0] for model in models.values() for layer in model.modules()})

# %% [markdown]
# These figures are from the machine that built this page, which may have been busy.
# [Benchmarks](../benchmarks.md#models-of-other-libraries-accelerated) has careful ones, and
# [accelerate](../accelerate.md) the list of what it supports.
