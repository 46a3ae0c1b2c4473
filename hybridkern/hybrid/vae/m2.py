"""The semi-supervised VAE that sums over the class exactly, alone and on the features of another VAE."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_number, as_size, short
from hybridkern._calls import is_watched
from hybridkern._saved.built import Arguments
from hybridkern._tensors import shape_text
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows.base import draw_latents
from hybridkern.hybrid._labels import as_label, check_labels
from hybridkern.hybrid.vae.latents import Posterior, as_posterior, encode
from hybridkern.hybrid.vae.likelihoods import Gaussian, Likelihood, resolve_likelihood
from hybridkern.hybrid.vae.model import VAE, decoded_log_prob
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE, log_shares, one_hot
from hybridkern.nets import mlp

_LEAST_DEVIATION = 0.1  # features of M1 whose means vary less say nothing of the data


def as_classifier(value: object) -> nn.Module | None:
    """``value`` itself.

    Raises:
        TypeError: neither a module nor ``None``.
    """
    if value is not None and not isinstance(value, nn.Module):
        raise TypeError(f"classifier: got {short(value)}, expected a module or None")
    return value


def _classified(classifier: nn.Module, x: Tensor, classes: int) -> Tensor:
    logits = classifier(x.flatten(1))
    if logits.shape != (len(x), classes):
        raise ValueError(
            f"classifier: gave {shape_text(logits.shape)}, expected (B, {classes}): a logit for each class"
        )
    return log_shares(logits)


class M2(SemiSupervisedVAE):
    """``p(x) = sum_y p(y) E_p(z) p(x|y, z)``: the class is a latent too, summed over where it is unknown.

    Rows with a label maximize ``E_q [log p(x|y, z)] + log p(y) - KL(q(z|x, y) || p(z)) + weight * log q(y|x)``, rows
    without ``sum_y q(y|x) (bound of y - log q(y|x))``. Classes are equally frequent.

    Args:
        dim: dimensions of one example; images are flattened.
        classes: number of classes, at least 2.
        latent: number of latents.
        hidden: widths of the three networks.
        likelihood: see :class:`hybridkern.hybrid.vae.VAE`.
        weight: of ``log q(y|x)`` on rows with a label; published: 0.1 times all rows per labelled one.
        classifier: network of ``q(y|x)``, ``(B, dim)`` to logits ``(B, classes)``; ``None`` is one like the others.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range; in use, a classifier of another output.

    Source: Kingma et al. 2014 (arXiv:1406.5298), equations 6 to 9.

    >>> import torch
    >>> model = M2(4, classes=3, latent=2, hidden=(8,))
    >>> model.loss(torch.rand(5, 4), torch.tensor([0, 1, 2, -1, -1])).backward()
    """

    _settings = ("likelihood", "weight")

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        latent: int = 50,
        hidden: Sequence[int] = (500,),
        likelihood: str | Likelihood = "bernoulli",
        weight: float = 1.0,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__(dim, classes)
        own = as_classifier(classifier)
        self.latent = as_size("latent", latent)
        self.weight = as_number("weight", weight, lambda w: 0 <= w < math.inf, "a finite number of at least 0")
        self.likelihood = resolve_likelihood(likelihood)
        plain = mlp(self.dim, self.classes, hidden, activation=nn.Softplus)
        self.classifier: nn.Module = plain if own is None else own
        self.encoder: nn.Module = mlp(self.dim + self.classes, 2 * self.latent, hidden, activation=nn.Softplus)
        outputs = self.likelihood.outputs * self.dim
        self.decoder = mlp(self.latent + self.classes, outputs, hidden, activation=nn.Softplus)
        self.base = DiagonalGaussian(self.latent)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.log_probabilities`."""
        return _classified(self.classifier, self._rows(x), self.classes)

    def bound_of(self, x: Tensor, y: Tensor) -> Tensor:
        """The lower bound of ``log p(x, y)``, ``(B,)`` in nats."""
        given = one_hot(y, self.classes, self._rows(x))
        return self._bound(x, given, encode(self.encoder, x, given, latent=self.latent))

    def _bound(self, x: Tensor, given: Tensor, posterior: Posterior) -> Tensor:
        params = self.decoder(torch.cat((posterior.draw(), given), 1))
        return decoded_log_prob(self.likelihood, params, x) - math.log(self.classes) - posterior.kl()

    def labelled_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.labelled_bound`."""
        y = check_labels(y, len(x), self.classes)
        log_q = self.log_probabilities(x).gather(1, y[:, None]).squeeze(1)
        return self.bound_of(x, y) + self.weight * log_q

    def log_prob(self, x: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.log_prob`."""
        return self.summed(x, self.log_probabilities(x))

    def summed(self, x: Tensor, log_q: Tensor) -> Tensor:
        """:meth:`log_prob` with any ``log q(y|x)`` ``(B, classes)`` in nats."""
        return (log_q.exp() * (self._bounds(x) - log_q)).sum(1)

    def _bounds(self, x: Tensor) -> Tensor:
        """:meth:`bound_of` each row with each class, ``(B, classes)``, in one pass.

        The encoder's first layer, which is half of its arithmetic, sees a row once: what it gives is the sum of a part
        of the row and a part of the class.
        """
        classes, many = self.classes, x.repeat_interleave(self.classes, 0)
        first = self.encoder[0] if type(self.encoder) is nn.Sequential else None
        replaced = type(self).bound_of is not M2.bound_of or "bound_of" in self.__dict__
        if replaced or type(first) is not nn.Linear or is_watched((self.encoder, first)):
            labels = torch.arange(classes, device=x.device).repeat(len(x))
            return self.bound_of(many, labels).view(len(x), classes)
        given = torch.eye(classes, dtype=x.dtype, device=x.device).repeat(len(x), 1)
        of_row = nn.functional.linear(x.flatten(1), first.weight[:, : self.dim], first.bias)
        hidden = (of_row[:, None] + first.weight[:, self.dim :].T).flatten(0, 1)
        posterior = as_posterior(cast(nn.Sequential, self.encoder)[1:](hidden), self.latent)
        return self._bound(many, given, posterior).view(len(x), classes)

    def features(self, x: Tensor) -> Tensor:
        """Means of ``q(z|x, y)`` for the most probable class, ``(B, latent)``."""
        return self.features_of(x, self.log_probabilities(x).argmax(1))

    def features_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Means of ``q(z|x, y)``, ``(B, latent)``."""
        return encode(self.encoder, x, one_hot(y, self.classes, x), latent=self.latent).mean

    @torch.no_grad()
    def sample_of_class(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """See :meth:`SemiSupervisedVAE.sample_of_class`."""
        label, n = as_label(label, self.classes), as_size("n", n, 0)
        z = draw_latents(self.base, n, temperature=temperature, generator=generator)
        given = one_hot(torch.full((n,), label, device=z.device), self.classes, z)
        return self.likelihood.sample(self.decoder(torch.cat((z, given), 1)), generator=generator)


class M1M2(SemiSupervisedVAE):
    """M2 on the latents of a VAE that was trained before, M1, on all rows without a label.

    M2 sees draws of M1's latents, whose means vary by 0.1 at least over a sample, standardized. M1 stays as it is: its
    parameters are frozen, and it is in evaluation mode always, without dropout and with the averages it has.

    Args:
        first: a trained VAE.
        x: a sample of the data, ``(N, *shape)``, by which its latents are chosen and standardized.
        classes, latent, hidden, weight: of :class:`M2`, whose likelihood is Gaussian.
        classifier: network of ``q(y|x)``, ``(B, dim)`` to logits ``(B, classes)``, which sees the data; ``None`` is one
            that sees M1's latents, as published.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or latents of M1 that do not vary.

    Source: Kingma et al. 2014 (arXiv:1406.5298), section 2.3 and 4.1.
    """

    center: Tensor
    scale: Tensor
    chosen: Tensor

    def __init__(
        self,
        first: VAE,
        x: Tensor,
        classes: int,
        *,
        latent: int = 50,
        hidden: Sequence[int] = (500,),
        weight: float = 1.0,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__(x[0].numel(), classes)
        self.first = first.requires_grad_(False).eval()
        with torch.no_grad():
            means, log_scales = first.posterior(x)
        chosen = (means.std(0) > _LEAST_DEVIATION).nonzero()[:, 0]
        if not len(chosen):
            raise ValueError(
                f"first: none of its {first.dim} latents varies by {_LEAST_DEVIATION}, expected some that do"
            )
        drawn = means.var(0) + log_scales.mul(2).exp().mean(0)  # of draws, which vary more than means do
        self._assemble(chosen, means[:, chosen].mean(0), drawn[chosen].sqrt(), latent, hidden, weight, classifier)

    def _assemble(
        self,
        chosen: Tensor,
        center: Tensor,
        scale: Tensor,
        latent: int,
        hidden: Sequence[int],
        weight: float,
        classifier: nn.Module | None,
    ) -> None:
        for name, value in (("chosen", chosen), ("center", center), ("scale", scale)):
            self.register_buffer(name, value)
        own = as_classifier(classifier)
        unused = None if own is None else nn.Identity()  # M2's own, which nobody calls then
        self.second = M2(
            *(len(chosen), self.classes),
            latent=latent,
            hidden=hidden,
            likelihood=Gaussian(),
            weight=weight,
            classifier=unused,
        ).to(center.dtype)
        self.of_data = own

    def built_from(self) -> Arguments:
        """The arguments of :meth:`_restored`: the data are no part of the model."""
        known = inspect.signature(M1M2).bind(*self._built_from.args, **self._built_from.kwargs)
        known.apply_defaults()
        kept = {name: known.arguments[name] for name in ("latent", "hidden")} | {"weight": self.second.weight}
        if self.of_data is not None:
            kept["classifier"] = self.of_data
        return Arguments((self.first, self.dim, self.classes, len(self.chosen)), kept)

    @classmethod
    def _restored(
        cls,
        first: VAE,
        dim: int,
        classes: int,
        chosen: int,
        latent: int,
        hidden: Sequence[int],
        weight: float,
        classifier: nn.Module | None = None,
    ) -> M1M2:
        """A model of this shape, for weights to be loaded."""
        made = cls.__new__(cls)
        SemiSupervisedVAE.__init__(made, dim, classes)
        made.first = first.requires_grad_(False).eval()
        some = next(first.parameters()).new_zeros(chosen)
        made._assemble(torch.zeros(chosen, dtype=torch.int64), some, some.clone(), latent, hidden, weight, classifier)
        return made

    def train(self, mode: bool = True) -> M1M2:
        """As for any module, but for M1."""
        super().train(mode)
        self.first.eval()
        return self

    def _drawn(self, x: Tensor) -> Tensor:
        return (self.first.posterior(self._rows(x)).draw()[:, self.chosen] - self.center) / self.scale

    def _means(self, x: Tensor) -> Tensor:
        return (self.first.posterior(self._rows(x)).mean[:, self.chosen] - self.center) / self.scale

    @property
    def classifier(self) -> nn.Module:
        """The network of ``q(y|x)``, of the data or of M1's latents."""
        return self.second.classifier if self.of_data is None else self.of_data

    def log_probabilities(self, x: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.log_probabilities`; of the means of M1's latents, or of the data."""
        if self.of_data is None:
            return self.second.log_probabilities(self._means(x))
        return _classified(self.of_data, self._rows(x), self.classes)

    def labelled_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """What M2 maximizes on drawn latents of M1, ``(B,)`` in nats of these latents."""
        y, z = check_labels(y, len(x), self.classes), self._drawn(x)
        if self.of_data is None:
            return self.second.labelled_bound(z, y)
        log_q = self.log_probabilities(x).gather(1, y[:, None]).squeeze(1)
        return self.second.bound_of(z, y) + self.second.weight * log_q

    def log_prob(self, x: Tensor) -> Tensor:
        """M2's lower bound of the density **of M1's latents**, drawn, ``(B,)`` in nats."""
        z = self._drawn(x)
        return self.second.log_prob(z) if self.of_data is None else self.second.summed(z, self.log_probabilities(x))

    def features(self, x: Tensor) -> Tensor:
        """See :meth:`SemiSupervisedVAE.features`."""
        return self.second.features_of(self._means(x), self.log_probabilities(x).argmax(1))

    @torch.no_grad()
    def sample_of_class(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """See :meth:`SemiSupervisedVAE.sample_of_class`; latents of M1 that M2 does not see come from the prior."""
        label, n = as_label(label, self.classes), as_size("n", n, 0)
        z = draw_latents(self.first.base, n, temperature=temperature, generator=generator)
        seen = self.second.sample_of_class(label, n, temperature=temperature, generator=generator)
        z[:, self.chosen] = seen * self.scale + self.center
        return self.first.likelihood.sample(self.first.decoder(z), generator=generator)
