"""The characteristic-capturing VAE: the classifier's weight comes out of the bound, and nothing is to be tuned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern import ops
from hybridkern._arguments import as_size, short
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows.base import draw_latents
from hybridkern.hybrid._labels import as_label, check_labels
from hybridkern.hybrid.vae.latents import Posterior, encode
from hybridkern.hybrid.vae.likelihoods import Likelihood, resolve_likelihood
from hybridkern.hybrid.vae.model import decoded_log_prob
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE, log_shares

_LEAST_SCALE = 1e-3


class CCVAE(SemiSupervisedVAE):
    """Latents in two parts: ``z_c`` belongs to the class, with a prior ``p(z_c|y)`` and ``q(y|z_c)``; ``z_s`` is style.

    With ``q(y|x) = E_q(z_c|x) q(y|z_c)`` and ``w = q(y|z_c) / q(y|x)``, rows with a label maximize
    ``E_q [w (log p(x|z) p(z|y) / (q(z|x) q(y|z_c)))] + log q(y|x) + log p(y)``, rows without one
    ``E_q [sum_y q(y|z_c) log (p(x|z) p(z|y) p(y) / (q(z|x) q(y|z_c)))]``, where the source draws the class. No
    weight is chosen by hand. In ``w`` no gradient flows to ``z_c``.

    Args:
        encoder: ``(B, *shape)`` -> ``(B, 2 * (latent + style))``, means and log-scales of ``z_c``, ``z_s``, in halves.
        decoder: ``(B, latent + style)`` -> ``(B, outputs * dim)``.
        dim: dimensions of one example.
        classes: number of classes.
        latent, style: numbers of latents of either part.
        likelihood: see :class:`hybridkern.hybrid.vae.VAE`.
        samples: draws ``K`` of ``z_c`` for ``q(y|x)``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range.

    Source: Joy et al. 2021 (arXiv:2006.10102), equations 4 and 5.
    """

    _settings = ("likelihood", "samples")

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        dim: int,
        classes: int,
        *,
        latent: int | None = None,
        style: int = 16,
        likelihood: str | Likelihood = "bernoulli",
        samples: int = 100,
    ) -> None:
        super().__init__(dim, classes)
        for name, value in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(value, nn.Module):
                raise TypeError(f"{name}: got {short(value)}, expected an nn.Module")
        self.encoder, self.decoder = encoder, decoder
        self.latent = self.classes if latent is None else as_size("latent", latent)
        self.style, self.samples = as_size("style", style), as_size("samples", samples)
        self.likelihood = resolve_likelihood(likelihood)
        self.classifier = nn.Linear(self.latent, self.classes)
        directions = torch.eye(self.classes)[:, torch.arange(self.latent) % self.classes]
        self.mean = nn.Parameter(2 * (2 * directions - 1))  # 2 where a class has its own latent, -2 elsewhere
        self.raw_scale = nn.Parameter(torch.full((self.classes, self.latent), math.log(math.e - 1)))
        self.base = DiagonalGaussian(self.latent + self.style)

    def _posterior(self, x: Tensor) -> tuple[Posterior, Posterior]:
        """Of ``z_c`` and of ``z_s``."""
        whole = encode(self.encoder, self._rows(x), latent=self.latent + self.style)
        parts = (part.split((self.latent, self.style), 1) for part in whole)
        (mean_c, mean_s), (scale_c, scale_s) = parts
        return Posterior(mean_c, scale_c), Posterior(mean_s, scale_s)

    def _prior(self) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of ``p(z_c|y)``, ``(classes, latent)``."""
        return self.mean, (F.softplus(self.raw_scale) + _LEAST_SCALE).log()

    def _of_drawn(self, z_c: Tensor) -> Tensor:
        return log_shares(self.classifier(z_c))

    def _marginal(self, posterior: Posterior) -> Tensor:
        """``log q(y|x)`` by ``samples`` draws, in logs."""
        mean, log_scale = posterior
        noise = torch.randn(self.samples, *mean.shape, dtype=mean.dtype, device=mean.device)
        return torch.logsumexp(self._of_drawn(mean + log_scale.exp() * noise), 0) - math.log(self.samples)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """``log q(y|x)`` of every class in nats, ``(B, classes)``, by draws of the latents."""
        return self._marginal(self._posterior(x)[0])

    def _parts(self, x: Tensor) -> tuple[Posterior, Tensor, Tensor, Tensor]:
        """The posterior of ``z_c``, a draw of it, ``log p(x|z)``, and what the latents add but for ``log p(z_c|y)``."""
        q_c, q_s = self._posterior(x)
        z_c, z_s = q_c.draw(), q_s.draw()
        log_px = decoded_log_prob(self.likelihood, self.decoder(torch.cat((z_c, z_s), 1)), x)
        return q_c, z_c, log_px, -q_s.kl() - q_c.log_prob(z_c)

    def _log_priors(self, z_c: Tensor) -> Tensor:
        """``log p(z_c|y)`` of every class, ``(B, classes)``."""
        mean, log_scale = self._prior()
        return torch.stack(
            [ops.gaussian_log_prob(z_c, m[None], s[None]) for m, s in zip(mean, log_scale, strict=True)], 1
        )

    def labelled_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """See the class: a lower bound of ``log p(x, y)``, ``(B,)`` in nats."""
        y = check_labels(y, len(x), self.classes)
        q_c, z_c, log_px, rest = self._parts(x)
        pick = y[:, None]
        log_qy = self._of_drawn(z_c).gather(1, pick).squeeze(1)
        log_qyx = self._marginal(q_c).gather(1, pick).squeeze(1)
        log_pz = self._log_priors(z_c).gather(1, pick).squeeze(1)
        weight = torch.exp(self._of_drawn(z_c.detach()).gather(1, pick).squeeze(1) - log_qyx)
        return weight * (log_px + log_pz + rest - log_qy) + log_qyx - math.log(self.classes)

    def log_prob(self, x: Tensor) -> Tensor:
        """A lower bound of ``log p(x)``, ``(B,)`` in nats: the class is summed over under ``q(y|z_c)``."""
        _, z_c, log_px, rest = self._parts(x)
        log_qy = self._of_drawn(z_c)
        of_class = self._log_priors(z_c) - math.log(self.classes) - log_qy
        return log_px + rest + (log_qy.exp() * of_class).sum(1)

    def features(self, x: Tensor) -> Tensor:
        """Means of ``q(z_c|x)``, ``(B, latent)``."""
        return self._posterior(x)[0].mean

    @torch.no_grad()
    def sample_of_class(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """See :meth:`SemiSupervisedVAE.sample_of_class`."""
        label, n = as_label(label, self.classes), as_size("n", n, 0)
        z = draw_latents(self.base, n, temperature=temperature, generator=generator)
        mean, log_scale = self._prior()
        z_c = mean[label] + log_scale[label].exp() * z[:, : self.latent]
        return self.likelihood.sample(self.decoder(torch.cat((z_c, z[:, self.latent :]), 1)), generator=generator)
