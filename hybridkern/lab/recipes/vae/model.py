"""The models of a configuration: networks of one hidden layer, the same for all of them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern.distributions import ClassGaussians
from hybridkern.hybrid import HybridModel, heads
from hybridkern.hybrid.vae import CCVAE, M1M2, M2, VAE, Bernoulli, HybridVAE, Likelihood, Logistic, LogisticMixture
from hybridkern.hybrid.vae.latents import encode
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.nets import mlp

Model = HybridModel | SemiSupervisedVAE
_SMALL = 0.3
_LEAST = 0.01  # of a pixel's mean, and of a logistic's scale in steps of grey, at the start


def likelihood_of(config: VAEConfig, grey_levels: int) -> Likelihood:
    """The likelihood of pixels from 0 to 1."""
    if config.likelihood == "bernoulli":
        return Bernoulli()
    step = 1 / (grey_levels - 1)
    return Logistic(step) if config.likelihood == "logistic" else LogisticMixture(config.components, step)


def model_of(config: VAEConfig, data: DataShape) -> Model:
    """The model, with torch's global generator; of ``"m1m2"`` the VAE that it stands on, not yet trained."""
    likelihood, dim, hidden = likelihood_of(config, data.grey_levels), data.dim, (config.hidden,)
    outputs = likelihood.outputs * dim
    if config.model == "m2":
        weight = config.label_weight / config.labelled_share  # a batch's mean is over all of its images
        own = classifier_of(config, data)
        return M2(
            *(dim, data.classes),
            latent=config.latent,
            hidden=hidden,
            likelihood=likelihood,
            weight=weight,
            classifier=own,
        )
    if config.model == "ccvae":
        latents = data.classes + config.latent
        nets = mlp(dim, 2 * latents, hidden, activation=nn.ReLU), mlp(latents, outputs, hidden, activation=nn.ReLU)
        return CCVAE(*nets, dim, data.classes, style=config.latent, likelihood=likelihood)
    encoder = mlp(dim, 2 * config.latent, hidden, activation=nn.ReLU)
    decoder = mlp(config.latent, outputs, hidden, activation=nn.ReLU)
    if config.model == "bayes":
        vae = VAE(encoder, decoder, config.latent, likelihood=likelihood)
        vae.base = base = ClassGaussians(config.latent, data.classes)  # type: ignore[assignment]
        return HybridModel(vae, heads.Bayes(base))  # type: ignore[arg-type]
    return HybridVAE(encoder, decoder, heads.Categorical(config.latent, data.classes), likelihood=likelihood)


def classifier_of(config: VAEConfig, data: DataShape) -> nn.Module | None:
    """Of rows that are grey images: two 5x5 convolutions of stride 2, and two layers; ``None``: the model's own.

    Raises:
        RecipeError: images of another kind.
    """
    if config.classifier == "mlp":
        return None
    if len(data.shape) != 2:
        raise RecipeError(f"--set classifier: got conv for images {data.shape}, expected grey ones (H, W)")
    height, width = data.shape
    left = 32 * (-(-height // 4)) * (-(-width // 4))
    return nn.Sequential(
        nn.Unflatten(1, (1, height, width)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(left, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, data.classes),
    )


def stacked(config: VAEConfig, data: DataShape, first: VAE, x: Tensor) -> M1M2:
    """M2 on a VAE, some of whose data are ``x``.

    Raises:
        ValueError: no latent of the VAE varies over ``x``.
    """
    weight = config.label_weight / config.labelled_share
    own = classifier_of(config, data)
    return M1M2(*(first, x, data.classes), latent=config.latent, hidden=(config.hidden,), weight=weight, classifier=own)


def decoding(model: Model) -> VAE | M2 | CCVAE:
    """The part of a model that holds the decoder of data, and their likelihood."""
    if isinstance(model, HybridModel):
        return cast(VAE, model.flow)
    return model.first if isinstance(model, M1M2) else cast(M2 | CCVAE, model)


def latents_of(model: Model, x: Tensor) -> Tensor:
    """What the decoder reads of ``x`` ``(B, D)``: means of the latents, and of M2 the most probable class."""
    if isinstance(model, M1M2):
        return model.first(x)[0]
    if isinstance(model, CCVAE):
        return encode(model.encoder, x, latent=model.latent + model.style).mean
    if isinstance(model, M2):
        chosen = model.log_probabilities(x).argmax(1)
        return torch.cat([model.features(x), nn.functional.one_hot(chosen, model.classes).to(x.dtype)], 1)
    return cast(HybridModel, model).flow(x)[0]


@torch.no_grad()
def start_decoder(model: Model, x: Tensor) -> None:
    """Starts the decoder from what is known of each pixel alone, by a sample ``x`` ``(N, D)``."""
    part = decoding(model)
    last = cast(nn.Linear, cast(nn.Sequential, part.decoder)[-1])
    mean, likelihood = x.mean(0), part.likelihood
    last.weight *= _SMALL
    if isinstance(likelihood, Bernoulli):
        last.bias.copy_(mean.clamp(_LEAST, 1 - _LEAST).logit())
    elif isinstance(likelihood, Logistic):
        scale = x.std(0) * math.sqrt(3) / math.pi + _LEAST * likelihood.bin_width
        last.bias.copy_(torch.cat([mean, scale.clamp(min=likelihood.bin_width / 2).log()]))
    elif isinstance(likelihood, LogisticMixture):
        shares = (torch.arange(likelihood.components) + 0.5) / likelihood.components
        centers = torch.quantile(x, shares, dim=0)
        scale = (x.std(0) / likelihood.components).clamp(min=likelihood.bin_width / 2).log().expand_as(centers)
        last.bias.copy_(torch.cat([torch.zeros_like(centers), centers, scale]).flatten())
