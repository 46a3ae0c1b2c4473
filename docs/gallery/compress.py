# %% [markdown]
# # Lossless compression
#
# A flow on whole numbers gives every picture a probability, and an entropy coder turns that into bytes: the better the
# model, the fewer. Here an integer flow stores handwritten digits, and gives every pixel back.

# %%
import io
import lzma
import zlib

import matplotlib.pyplot as plt
import torch
from PIL import Image
from sklearn.datasets import load_digits

from hybridkern import codec, flows, lab

torch.manual_seed(0)
images = torch.tensor(load_digits().data).long().view(-1, 1, 8, 8)  # grey values 0 to 16
train, test = images[:1400], images[1400:]

# %% [markdown]
# `flows.IDF` maps whole numbers to whole numbers. Its prior is a mixture of logistics for each latent.

# %%
flow = flows.IDF((1, 8, 8), levels=2, layers=2, hidden=32, prior="mixture", center=8, scale=8)
history = lab.fit(flow, train, validation=(test[:100],), epochs=14, batch_size=70, lr=3e-3, progress=False)
print(history)

# %% [markdown]
# For a file that any machine can read, the networks become integers (`quantize`). That costs a few bits.

# %%
quantized = codec.quantize(flow, train)
data = codec.Codec(quantized).encode(test)
assert torch.equal(codec.Codec(quantized).decode(data), test)
print(f"{len(test)} pictures in {len(data)} bytes, and back without a difference")

# %% [markdown]
# For comparison: general-purpose codes. They know nothing about digits, and need no model to decode; the flow needs its
# weights, which are not counted here. Each picture is stored so that it can be read alone, which for the flow costs
# two bytes for its length and four for a checksum. The dashed line is what the model itself asks for, $-\log_2 P(x)$.

# %% tags=["thumbnail"]
pictures = [picture.numpy() for picture in test[:, 0].to(torch.uint8)]
nibbles = [(values.clip(0, 15)[:, ::2] * 16 + values.clip(0, 15)[:, 1::2]).tobytes() for values in pictures]


def image_file(values, kind, **options):
    file = io.BytesIO()
    Image.fromarray(values * 15).save(file, kind, **options)
    return file.getvalue()


codes = {
    "PNG": [image_file(values, "PNG", optimize=True) for values in pictures],
    "WebP, lossless": [image_file(values, "WebP", lossless=True, quality=100, method=6) for values in pictures],
    "deflate": [zlib.compress(values.tobytes(), 9)[2:-4] for values in pictures],
    "4 bits per pixel": nibbles,
    "hybridkern": [data],
}
sizes = {name: sum(map(len, streams)) / len(test) for name, streams in codes.items()}
with torch.no_grad():
    bits = -flow.log_prob(test) / torch.tensor(2.0).log()
figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
bars = axes.barh(list(sizes), list(sizes.values()), color=["0.6"] * 4 + ["#1f5fa8"])
axes.bar_label(bars, fmt=" %.1f")
axes.axvline(bits.mean() / 8, color="#b3261e", linestyle="--", linewidth=1)
axes.set(xlabel="bytes per picture of 8 x 8 pixels")
axes.spines[["top", "right"]].set_visible(False)
axes.margins(x=0.12)

# %% [markdown]
# For pictures this small, headers matter. With all of them in one stream, general codes find what the pictures have
# in common; but then no picture can be read alone.

# %%
whole = test.to(torch.uint8).numpy().tobytes()
lzma_bytes = len(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME)) / len(test)
print(f"LZMA, all pictures in one stream: {lzma_bytes:.1f} bytes per picture")
print(f"the flow, without length and checksum: {len(data) / len(test) - 6:.1f} bytes")

# %% [markdown]
# Which pictures are cheap? The ones that the model finds probable.

# %%
order = bits.argsort()
figure, panels = plt.subplots(2, 1, figsize=(7.0, 2.0), layout="constrained")
for axes, chosen, title in ((panels[0], order[:14], "cheapest"), (panels[1], order[-14:], "dearest")):
    axes.imshow(test[chosen, 0].permute(1, 0, 2).reshape(8, -1), cmap="gray", interpolation="nearest")
    axes.set_title(f"{title}: {bits[chosen].mean() / 8:.1f} bytes", fontsize=9)
    axes.set_axis_off()

# %% [markdown]
# `hybridkern compress` does this for files of pictures: [lossless compression](../compress.md).
