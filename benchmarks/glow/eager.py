"""Glow in plain PyTorch, nothing fused and nothing in place: what it costs without a library, and what is right.

After D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", arXiv:1807.03039. A step is
actnorm, a 1x1 convolution in LU form, and the coupling ``(x + t) * sigmoid(a + 2)`` of the second half by a network
of the first; the base is a standard normal.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.glow.side import Architecture, Side


def coupling_network(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    """3x3, ReLU, 1x1, ReLU, 3x3; the last one starts at zero."""
    last = nn.Conv2d(hidden, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first, middle = nn.Conv2d(inputs, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)


def squeeze(x: Tensor) -> Tensor:
    """Blocks of 2x2 pixels become channels: row of the block, then column, then channel of the image."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def unsqueeze(x: Tensor) -> Tensor:
    """Undoes :func:`squeeze`."""
    b, c, h, w = x.shape
    return x.view(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)


class EagerStep(nn.Module):
    """One step of flow on ``(B, channels, H, W)``."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        self.register_buffer("sign", upper.diagonal().sign())
        self.register_buffer("permutation", permutation)
        self.net = coupling_network(channels // 2, channels, hidden)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Actnorm's output gets mean 0 and standard deviation 1 a channel."""
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-(deviation + 1e-6).log())

    def weight(self) -> Tensor:
        """``P L (U + diag(sign * exp(log_diagonal)))``."""
        lower = self.lower.tril(-1) + torch.eye(len(self.sign), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + (self.sign * self.log_diagonal.exp()).diag()
        return self.permutation @ lower @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):  # the flow itself stays in float32
            x = (x + self.bias[:, None, None]) * self.log_scale.exp()[:, None, None]
            x = F.conv2d(x, self.weight()[:, :, None, None])
        first, second = x.chunk(2, 1)
        raw, shift = self.net(first).to(x.dtype).chunk(2, 1)
        scale = torch.sigmoid(raw + 2)
        y = torch.cat((first, (second + shift) * scale), 1)
        constant = height * width * (self.log_scale.sum() + self.log_diagonal.sum())
        return y, scale.log().flatten(1).sum(1) + constant

    def inverse(self, y: Tensor) -> Tensor:
        """Latent -> data."""
        first, second = y.chunk(2, 1)
        raw, shift = self.net(first).to(y.dtype).chunk(2, 1)
        x = torch.cat((first, second / torch.sigmoid(raw + 2) - shift), 1)
        with torch.autocast(x.device.type, enabled=False):
            x = F.conv2d(x, self.weight().double().inverse().to(x.dtype)[:, :, None, None])
        return x * (-self.log_scale).exp()[:, None, None] - self.bias[:, None, None]


class EagerGlow(nn.Module):
    """A multi-scale Glow; half of the channels leave after each level but the last."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.levels = nn.ModuleList(
            nn.ModuleList(EagerStep(shape[0], architecture.hidden) for _ in range(architecture.steps))
            for shape in architecture.level_shapes()
        )
        self.initialized = False

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latents, one tensor a level, and the log-determinant ``(B,)``."""
        latents, log_det = [], x.new_zeros(len(x))
        for index, level in enumerate(self.levels):
            x = squeeze(x.contiguous())
            for step in level:
                if not self.initialized:
                    step.initialize(x)
                x, change = step(x)
                log_det = log_det + change
            if index < len(self.levels) - 1:
                x, latent = x.chunk(2, 1)
                latents.append(latent)
        self.initialized = True
        return [*latents, x], log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, ``(B,)``."""
        latents, log_det = self(x)
        squares = sum(latent.square().flatten(1).sum(1) for latent in latents)
        return log_det - 0.5 * (squares + self.architecture.dim * math.log(2 * math.pi))

    def inverse(self, latents: list[Tensor]) -> Tensor:
        """Images of latents as :meth:`forward` gives them."""
        x = latents[-1]
        for index in range(len(self.levels) - 1, -1, -1):
            if index < len(self.levels) - 1:
                x = torch.cat((x, latents[index]), 1)
            for step in reversed(self.levels[index]):
                x = step.inverse(x)
            x = unsqueeze(x.contiguous())
        return x

    @torch.no_grad()
    def take_over(self, flow: nn.Module) -> None:
        """Takes the weights of a ``hybridkern.flows.Glow``, initialized, of the same architecture."""
        for mine, theirs in zip(self.levels, flow.levels, strict=True):
            mixing = theirs.mixing
            for index, (step, other) in enumerate(zip(mine, theirs.steps, strict=True)):
                step.bias.copy_(mixing.shift[index])
                for name in ("log_scale", "lower", "upper", "log_diagonal", "sign", "permutation"):
                    getattr(step, name).copy_(getattr(mixing, name)[index])
                for conv, source in zip(
                    step.net[::2], (other.net.conv1, other.net.conv2, other.net.conv3), strict=True
                ):
                    conv.load_state_dict(source.state_dict())
        self.initialized = True

    def sample(self, count: int) -> Tensor:
        """Images of the model."""
        shapes = self.architecture.level_shapes()
        halves = [(channels // 2, height, width) for channels, height, width in shapes[:-1]]
        return self.inverse([torch.randn(count, *shape) for shape in (*halves, shapes[-1])])


def eager(architecture: Architecture, bf16: bool = False) -> Side:
    """In float32; or with networks in bfloat16 and channels_last, the cheapest speed-up there is."""
    model = EagerGlow(architecture)
    if bf16:
        model.to(memory_format=torch.channels_last)
    networks = tuple(step.net for level in model.levels for step in level)
    name = "eager-bf16" if bf16 else "eager"
    return Side(name, model, model.log_prob, model.sample, networks, bf16=bf16, channels_last=bf16)
