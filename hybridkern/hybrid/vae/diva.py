"""The domain-invariant VAE: latents of the class, of the domain, and of the rest, each with an encoder of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_number, as_size
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows.base import draw_latents
from hybridkern.hybrid._labels import as_label, check_labels, split_unlabelled
from hybridkern.hybrid.vae.latents import Posterior, encode
from hybridkern.hybrid.vae.likelihoods import Likelihood, resolve_likelihood
from hybridkern.hybrid.vae.model import decoded_log_prob
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE, log_shares, one_hot
from hybridkern.nets import mlp


class _Part(nn.Module):
    """Latents that belong to a label: ``q(z|x)``, the prior ``p(z|label)``, and the classifier ``q(label|z)``."""

    def __init__(self, dim: int, labels: int, latent: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.labels, self.latent = labels, latent
        self.encoder = mlp(dim, 2 * latent, hidden, activation=nn.ReLU)
        self.prior = mlp(labels, 2 * latent, hidden[:1], activation=nn.ReLU)
        self.classifier = nn.Linear(latent, labels)

    def posterior(self, x: Tensor) -> Posterior:
        return encode(self.encoder, x.flatten(1), latent=self.latent)

    def prior_of(self, y: Tensor, like: Tensor) -> Posterior:
        return encode(self.prior, one_hot(y, self.labels, like), latent=self.latent)

    def log_priors(self, z: Tensor) -> Tensor:
        """``log p(z|label)`` of every label, ``(B, labels)``."""
        prior = self.prior_of(torch.arange(self.labels, device=z.device), z)
        pairs = zip(prior.mean, prior.log_scale, strict=True)
        return torch.stack([ops.gaussian_log_prob(z, mean[None], scale[None]) for mean, scale in pairs], 1)

    def log_labels(self, z: Tensor) -> Tensor:
        return log_shares(self.classifier(torch.relu(z)))

    def known(self, q: Posterior, z: Tensor, y: Tensor) -> Tensor:
        """``log p(z|y) - log q(z|x)``."""
        prior = self.prior_of(y, z)
        return prior.log_prob(z) - q.log_prob(z)

    def unknown(self, q: Posterior, z: Tensor) -> Tensor:
        """``sum_y q(y|z) (log p(z|y) + log p(y) - log q(y|z)) - log q(z|x)``."""
        log_q = self.log_labels(z)
        each = self.log_priors(z) - math.log(self.labels) - log_q
        return (log_q.exp() * each).sum(1) - q.log_prob(z)


class DIVA(SemiSupervisedVAE):
    """Latents of the class, of the domain (where there are any) and of the rest, so that classes carry to new domains.

    Rows with a label maximize the bound of ``log p(x|y, d)`` plus ``weight * log q(y|z_y)`` and
    ``domain_weight * log q(d|z_d)``; without a label the class is summed over under ``q(y|z_y)``.

    Args:
        dim: dimensions of one example; images are flattened.
        classes: number of classes.
        domains: number of domains; 0 for none.
        latent: number of latents of each part.
        hidden: widths of the networks.
        likelihood: see :class:`hybridkern.hybrid.vae.VAE`.
        weight, domain_weight: see above, in nats per example.
        beta: factor of the latents' parts of the bound; published: raised from 0 to 1 over the first epochs.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range.

    Source: Ilse et al. 2020 (arXiv:1905.10427), equations 2 to 6.
    """

    _settings = ("likelihood", "weight", "domain_weight", "beta")

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        domains: int = 0,
        latent: int = 64,
        hidden: Sequence[int] = (500,),
        likelihood: str | Likelihood = "bernoulli",
        weight: float = 1.0,
        domain_weight: float = 1.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__(dim, classes)
        self.latent, self.domains = as_size("latent", latent), as_size("domains", domains, 0)
        for name, value in (("weight", weight), ("domain_weight", domain_weight), ("beta", beta)):
            number = as_number(name, value, lambda w: 0 <= w < math.inf, "a finite number of at least 0")
            setattr(self, name, number)
        self.likelihood = resolve_likelihood(likelihood)
        self.of_class = _Part(self.dim, self.classes, self.latent, hidden)
        self.of_domain = _Part(self.dim, self.domains, self.latent, hidden) if self.domains else None
        self.encoder = mlp(self.dim, 2 * self.latent, hidden, activation=nn.ReLU)
        parts = 2 + bool(self.domains)
        outputs = self.likelihood.outputs * self.dim
        self.decoder = mlp(parts * self.latent, outputs, hidden, activation=nn.ReLU)
        self.base = DiagonalGaussian(self.latent)

    weight: float
    domain_weight: float
    beta: float

    def log_probabilities(self, x: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.log_probabilities`; of the mean of the class's latents."""
        return self.of_class.log_labels(self.features(x))

    def _bound(self, x: Tensor, y: Tensor | None, d: Tensor | None) -> Tensor:
        q_y, q_x = self.of_class.posterior(self._rows(x)), encode(self.encoder, x.flatten(1), latent=self.latent)
        z_y, z_x = q_y.draw(), q_x.draw()
        latents, of_latents, extra = [z_y, z_x], -q_x.kl(), x.new_zeros(len(x))
        of_latents = of_latents + (self.of_class.unknown(q_y, z_y) if y is None else self.of_class.known(q_y, z_y, y))
        if y is not None:
            extra = extra + self.weight * self.of_class.log_labels(z_y).gather(1, y[:, None]).squeeze(1)
        if self.of_domain is not None:
            q_d = self.of_domain.posterior(x)
            z_d = q_d.draw()
            latents.append(z_d)
            part = self.of_domain
            of_latents = of_latents + (part.unknown(q_d, z_d) if d is None else part.known(q_d, z_d, d))
            if d is not None:
                extra = extra + self.domain_weight * part.log_labels(z_d).gather(1, d[:, None]).squeeze(1)
        log_px = decoded_log_prob(self.likelihood, self.decoder(torch.cat(latents, 1)), x)
        return log_px + self.beta * of_latents + extra

    def labelled_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """See the class, for rows of unknown domain."""
        return self._bound(x, check_labels(y, len(x), self.classes), None)

    def log_prob(self, x: Tensor) -> Tensor:
        """A lower bound of ``log p(x)`` (with ``beta`` of 1), ``(B,)`` in nats."""
        return self._bound(x, None, None)

    def loss(self, x: Tensor, y: Tensor, d: Tensor | None = None) -> Tensor:
        """As :meth:`SemiSupervisedVAE.loss`, with the domains ``d`` ``(B,)`` of all rows where they are known.

        Raises:
            TypeError, ValueError: labels or domains of another dtype or shape, or out of range.
        """
        if d is None:
            return super().loss(x, y)
        if self.of_domain is None:
            raise ValueError("d: got domains, expected None: the model was built without (domains=0)")
        d = check_labels(d, len(self._rows(x)), self.domains)
        unlabelled, labels = split_unlabelled(y, len(x), self.classes)
        total = x.new_zeros(())
        for rows, known in ((~unlabelled, True), (unlabelled, False)):
            chosen = rows.nonzero()[:, 0]
            if len(chosen):
                own = labels[chosen] if known else None
                total = total - self._bound(x[chosen], own, d[chosen]).sum()
        return total / max(len(x), 1)

    def features(self, x: Tensor) -> Tensor:
        """Means of the class's latents, ``(B, latent)``."""
        return self.of_class.posterior(self._rows(x)).mean

    @torch.no_grad()
    def sample_of_class(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """See :meth:`SemiSupervisedVAE.sample_of_class`; domains in equal parts."""
        label, n = as_label(label, self.classes), as_size("n", n, 0)
        z_x = draw_latents(self.base, n, temperature=temperature, generator=generator)
        prior = self.of_class.prior_of(torch.full((n,), label, device=z_x.device), z_x)
        latents = [prior.draw(generator, temperature), z_x]
        if self.of_domain is not None:
            d = torch.arange(n, device=z_x.device) % self.domains
            latents.append(self.of_domain.prior_of(d, z_x).draw(generator, temperature))
        return self.likelihood.sample(self.decoder(torch.cat(latents, 1)), generator=generator)
