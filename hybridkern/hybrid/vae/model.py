"""A variational autoencoder with the interface of a flow, and a hybrid model on it."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size, short
from hybridkern._saved.built import Arguments, Saved
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows import FlowPass
from hybridkern.flows.base import draw_latents
from hybridkern.hybrid.heads import Head
from hybridkern.hybrid.model import HybridModel
from hybridkern.hybrid.vae.latents import Posterior, encode
from hybridkern.hybrid.vae.likelihoods import Likelihood, resolve_likelihood


class BoundPass(FlowPass):
    """A pass whose ``log_px`` is a bound from below; ``dim`` is that of the data, by which weights are divided."""

    _dim: int

    def _replace(self, **fields: Tensor) -> BoundPass:  # a named tuple keeps its fields alone
        return bound_pass(*super()._replace(**fields), self._dim)

    @property
    def dim(self) -> int:
        """Dimensions of one example of the data."""
        return self._dim


def bound_pass(z: Tensor, log_pz: Tensor, rest: Tensor, dim: int) -> BoundPass:
    """Latents, ``log p(z)``, and what ``log p(x)``'s bound has beside it."""
    found = BoundPass(z, log_pz, rest)
    found._dim = dim
    return found


class VAE(Saved, nn.Module):
    """``p(x) = E_p(z) p(x|z)``, bounded from below by ``E_q(z|x) [log p(x|z) + log p(z) - log q(z|x)]``.

    It has the methods of a flow. **Every log-probability of data is a lower bound**, from one draw of ``z``: unbiased
    for the bound, and closer to ``log p(x)`` with ``samples`` in :meth:`log_prob`.

    Args:
        encoder: ``(B, *shape)`` -> ``(B, 2 * dim)``, means and log-scales of ``q(z|x)``.
        decoder: ``(B, dim)`` -> ``(B, outputs * D)``, what the likelihood reads.
        dim: number of latents.
        likelihood: ``"bernoulli"``, ``"gaussian"``, ``"logistic"``, ``"mixture"``, or a
            :class:`~hybridkern.hybrid.vae.Likelihood`.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range.

    Source: Kingma and Welling 2014 (arXiv:1312.6114).
    """

    discrete = False
    _replaceable = ("base",)
    _settings = ("likelihood",)

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, dim: int, *, likelihood: str | Likelihood = "bernoulli"
    ) -> None:
        super().__init__()
        for name, value in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(value, nn.Module):
                raise TypeError(f"{name}: got {short(value)}, expected an nn.Module")
        self.encoder, self.decoder = encoder, decoder
        self.dim = as_size("dim", dim)
        self.likelihood = resolve_likelihood(likelihood)
        self.base = DiagonalGaussian(self.dim)

    def posterior(self, x: Tensor) -> Posterior:
        """``q(z|x)`` of ``x`` ``(B, *shape)``.

        Raises:
            ValueError: the encoder's output has another shape.
        """
        return encode(self.encoder, x, latent=self.dim)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x|z)`` in nats, ``(B,)``.

        Raises:
            ValueError: data outside of the likelihood's range, or an output of the decoder of another shape.
        """
        return decoded_log_prob(self.likelihood, self.decoder(z), x)

    def run(self, x: Tensor) -> BoundPass:
        """One draw of ``z`` for each row of ``x`` ``(B, *shape)``, and the bound that it gives."""
        posterior = self.posterior(x)
        z = posterior.draw()
        rest = self.log_likelihood(x, z) - posterior.log_prob(z)
        return bound_pass(z, self.base(z), rest, x[0].numel() if len(x) else 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of ``q(z|x)``, ``(B, dim)``, and zeros ``(B,)``: what a head reads to predict."""
        mean = self.posterior(x).mean
        return mean, mean.new_zeros(len(mean))

    def log_prob(self, x: Tensor, *, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """A lower bound of ``log p(x)`` in nats, ``(B,)``: importance-weighted where ``samples`` is above 1.

        Source: Burda et al. 2016 (arXiv:1509.00519), equation 8.
        """
        posterior = self.posterior(x)
        bounds = []
        for _ in range(as_size("samples", samples)):
            z = posterior.draw(generator)
            bounds.append(self.log_likelihood(x, z) + self.base(z) - posterior.log_prob(z))
        return torch.logsumexp(torch.stack(bounds), 0) - math.log(samples)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of ``p(x|z)``, ``(B, D)``, and zeros ``(B,)``."""
        x = self.likelihood.mean(self.decoder(z))
        return x, x.new_zeros(len(x))

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples of ``p(x)``, ``(n, D)``, without gradient; the scale of latents is times ``temperature``."""
        n = as_size("n", n, 0)
        z = draw_latents(self.base, n, temperature=temperature, generator=generator)
        return self.data_of(z, generator=generator)

    def decode(self, z: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, BoundPass]:
        """A sample of ``p(x|z)`` for each row of ``z`` ``(B, dim)``: ``(B, D)``, and a bound of its ``log p(x)``."""
        x, log_pz = self.data_of(z, generator=generator), self.base(z)
        return x, bound_pass(z, log_pz, self.log_prob(x, generator=generator) - log_pz, x[0].numel() if len(x) else 1)

    def data_of(self, z: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """A sample of ``p(x|z)`` for each row of ``z`` ``(B, dim)``, as :meth:`decode` gives it, and nothing else."""
        return self.likelihood.sample(self.decoder(z), generator=generator)


def decoded_log_prob(likelihood: Likelihood, params: Tensor, x: Tensor) -> Tensor:
    """``log p(x|z)`` in nats, ``(B,)``, from what a decoder gave.

    Raises:
        ValueError: an output of another shape, or data outside of the likelihood's range.
    """
    flat = x.flatten(1)
    wanted = likelihood.outputs * flat.shape[1]
    if params.ndim != 2 or params.shape[1] != wanted:
        raise ValueError(
            f"decoder: gave shape {tuple(params.shape)}, expected ({len(x)}, {wanted}): {likelihood.outputs} numbers "
            f"for each of {flat.shape[1]} values"
        )
    return likelihood.log_prob(params, flat)


class HybridVAE(HybridModel):
    """``log p(y|x) + lambda ELBO(x)`` with a shared encoder: a hybrid model whose ``log_px`` **is a lower bound**.

    Every objective takes it. In training the head reads drawn latents, in prediction the mean of ``q(z|x)``.

    Args:
        encoder, decoder, likelihood: see :class:`VAE`.
        head: reads the latents.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range.

    >>> import torch
    >>> from torch import nn
    >>> from hybridkern.hybrid import heads, objectives
    >>> model = HybridVAE(nn.Linear(6, 4), nn.Linear(2, 6), heads.Categorical(2, classes=3))
    >>> x, y = torch.rand(5, 6), torch.tensor([0, 1, 2, 0, -1])
    >>> model.loss(x, y, objectives.SemiSupervised(objectives.Joint())).backward()
    """

    log_px_is_bound = True

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, head: Head, *, likelihood: str | Likelihood = "bernoulli"
    ) -> None:
        if not isinstance(head, Head):
            raise TypeError(f"head: got {short(head)}, expected a head")
        super().__init__(VAE(encoder, decoder, head.dim, likelihood=likelihood), head)  # type: ignore[arg-type]

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`HybridModel.judge`; the bound is from a draw of the latents, the prediction from their mean."""
        return self.flow.run(x).log_px, self.head(self.flow(x)[0])

    def built_from(self) -> Arguments:
        """The arguments of the constructor, as the model holds them now."""
        if type(self) is not HybridVAE:
            return super().built_from()
        vae = cast(VAE, self.flow)
        return Arguments((vae.encoder, vae.decoder, self.head), {"likelihood": vae.likelihood})
