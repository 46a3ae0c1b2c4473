"""The hybrid model: a flow for ``p(x)``, and a head on its latents for ``p(y|x)``."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size, as_temperature, short
from hybridkern._saved.built import Arguments, Saved
from hybridkern._tensors import check_same_device
from hybridkern.flows import Flow, FlowPass
from hybridkern.flows.base import draw_latents
from hybridkern.hybrid._labels import as_label
from hybridkern.hybrid._scaling import watch_scale
from hybridkern.hybrid.heads import Bayes, Classifier, Head
from hybridkern.hybrid.objectives import Objective


class HybridOutput(NamedTuple):
    """Everything one pass gives: latents ``z`` ``(B, D)``, ``log_px`` ``(B,)`` in nats, the head's ``prediction``."""

    z: Tensor
    log_px: Tensor
    prediction: Tensor


class HybridSample(NamedTuple):
    """Samples ``x`` ``(n, D)``, their ``log_px`` ``(n,)`` in nats, and the head's ``prediction`` for them."""

    x: Tensor
    log_px: Tensor
    prediction: Tensor


class HybridModel(Saved, nn.Module):
    """A flow and a head that reads its latents; ``p(x)`` is exact and both come from one pass of the flow.

    Args:
        flow: gives latents and ``log p(x)``.
        head: gives ``p(y|x)`` from the latents.

    Raises:
        TypeError: no flow or no head.
        ValueError: the head expects another number of dimensions than the flow has.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767).

    >>> import torch
    >>> from hybridkern import flows
    >>> from hybridkern.hybrid import heads, objectives
    >>> model = HybridModel(flows.IDF(4, layers=1, hidden=8), heads.Categorical(4, classes=3))
    >>> x, y = torch.zeros(5, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> z, log_px, logits = model(x)
    >>> model.loss(x, y, objectives.Weighted(0.5)).backward()
    """

    def __init__(self, flow: Flow, head: Head) -> None:
        super().__init__()
        for name, value, kind in (("flow", flow, Flow), ("head", head, Head)):
            if not isinstance(value, nn.Module) or not hasattr(value, "dim"):
                raise TypeError(f"{name}: got {short(value)}, expected a {kind.__name__.lower()}")
        if head.dim != flow.dim:
            raise ValueError(f"head: got dim {head.dim}, expected {flow.dim}, the dim of the flow")
        self.flow = flow
        self.head = head
        self._own_head()

    def built_from(self) -> Arguments:
        """The arguments of the constructor, as the model holds them now."""
        return Arguments((self.flow, self.head), {}) if type(self) is HybridModel else super().built_from()

    def _own_head(self) -> Head:
        """The head, which reads the flow's own base where it reads one: either may have been replaced by a copy."""
        if isinstance(self.head, Bayes) and self.head.base is not self.flow.base:
            raise ValueError("head: got a Bayes head of another distribution, expected one of flow.base itself")
        return self.head

    def forward(self, x: Tensor) -> HybridOutput:
        """Latents, ``log p(x)`` and prediction for ``x`` ``(B, D)``; raises what the flow raises."""
        head, latents = self._own_head(), self.flow.run(x)
        return HybridOutput(latents.z, latents.log_px, head(latents.z))

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``log p(x)`` ``(B,)`` in nats, and the prediction as :meth:`predict` reads it, for ``x`` ``(B, D)``."""
        out: HybridOutput = self(x)
        return out.log_px, out.prediction

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)`` ``(B,)`` in nats."""
        return self.flow.log_prob(x)

    def log_joint(self, x: Tensor, y: Tensor) -> Tensor:
        """``log p(x, y) = log p(y|x) + log p(x)`` ``(B,)`` in nats; ``y`` as the head's ``log_prob`` takes it."""
        out: HybridOutput = self(x)
        return self.head.log_prob(out.prediction, y) + out.log_px

    def loss(self, x: Tensor | FlowPass, y: Tensor, objective: Objective) -> Tensor:
        """Mean of ``objective`` over the batch, a scalar in nats.

        Args:
            x: ``(B, D)``, or what ``flow.run(x)`` gave.
            y: targets ``(B,)``, as the head's ``log_prob`` takes them. The label -1 (unlabelled) is for
                :class:`~hybridkern.hybrid.objectives.SemiSupervised`; other objectives refuse it.
            objective: one of :mod:`hybridkern.hybrid.objectives`.

        Raises:
            TypeError, ValueError: what the flow and the head raise; ``x`` or ``y`` lies on another device.

        Under float16 autocast an unscaled gradient gives a warning, once.
        """
        head, latents = self._own_head(), x if isinstance(x, FlowPass) else self.flow.run(x)
        if isinstance(y, Tensor):
            check_same_device("y", y, latents.z)
        loss = objective.loss(latents, head, y).mean()
        watch_scale(self, loss)
        return loss

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The head's point prediction for ``x`` ``(B, D)``, without gradient.

        Class labels ``(B,)`` int64, or the predictive means ``(B,)`` of a regression head.
        """
        head, (z, _) = self._own_head(), self.flow(x)
        return head.predict(head(z))

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """``p(y|x)`` of every class, ``(B, classes)``, for ``x`` ``(B, D)``, without gradient.

        Raises:
            TypeError: the head is no classifier.
        """
        head = self._classifier()
        return head.probabilities(head(self.flow(x)[0]))

    def _classifier(self) -> Classifier:
        head = self._own_head()
        if not isinstance(head, Classifier):
            raise TypeError(f"head: got {type(head).__name__}, expected a classifier")
        return head

    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples of ``p(x)``, ``(n, D)``, without gradient; see :meth:`hybridkern.flows.Flow.sample`."""
        return self.flow.sample(n, temperature=temperature, generator=generator)

    @torch.no_grad()
    def sample_with_prediction(self, n: int, *, generator: torch.Generator | None = None) -> HybridSample:
        """``n`` samples of ``p(x)`` and the head's predictions for them, from one pass of the flow, without gradient.

        The head reads the latents that were drawn, so that nothing is lost to the flow's round trip.

        Args:
            n: number of samples, 0 or more.
            generator: source of randomness, on the model's device; ``None`` is torch's default generator.

        Raises:
            TypeError, ValueError: another ``n``.
        """
        head, n = self._own_head(), as_size("n", n, 0)
        x, latents = self.flow.decode(self.flow.base.sample(n, generator=generator), generator=generator)
        return HybridSample(x, latents.log_px, head(latents.z))

    @torch.no_grad()
    def sample_of_class(
        self,
        label: int,
        n: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        max_draws: int = 1000,
    ) -> Tensor:
        """``n`` samples of ``p(x|y=label)``; at temperature 1 exact ones.

        With the head :class:`~hybridkern.hybrid.heads.Bayes` they are drawn as they are; otherwise they are samples of
        ``p(x)`` at this temperature, each kept with the probability ``p(y=label|x)``.

        Args:
            label: the class.
            n: number of samples, 0 or more.
            temperature: as for :meth:`sample`.
            generator: as for :meth:`sample`.
            max_draws: the most latents to draw for a sample, on average over the ``n``; drawing and judging latents
                takes no pass of the flow, only those that are kept do.

        Returns:
            ``(n, D)``, without gradient.

        Raises:
            TypeError: the head is no classifier, ``label`` or ``n`` no integer, or ``temperature`` no number.
            ValueError: no such class, a negative ``n`` or ``temperature``, or ``max_draws * n`` latents did not give
                ``n`` samples: the class is too rare.
        """
        head = self._classifier()
        label, n = as_label(label, head.classes), as_size("n", n, 0)
        scale = as_temperature(temperature)
        if isinstance(head, Bayes):
            z = head.sample_latents(label, n, temperature=scale, generator=generator)
            return self._data_of(z, generator)
        draw = partial(draw_latents, self.flow.base, temperature=scale, generator=generator)
        kept, found, drawn = [draw(0)], 0, 0
        while found < n:
            if drawn >= max_draws * n:
                raise ValueError(
                    f"label: class {label} is too rare under the model: {found} of {drawn} draws were of it, expected "
                    f"{n}; raise max_draws"
                )
            z = draw(min(max(4 * n, 256), max_draws * n - drawn))
            p = head.probabilities(head(z))[:, label]
            chosen = z[torch.rand(p.shape, dtype=p.dtype, device=p.device, generator=generator) < p]
            kept.append(chosen)
            drawn, found = drawn + len(z), found + len(chosen)
        return self._data_of(torch.cat(kept)[:n], generator)

    def _data_of(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """A sample of ``p(x|z)`` for each row of latents."""
        return self.flow.data_of(z, generator=generator)

    @torch.no_grad()
    def interpolate(self, x1: Tensor, x2: Tensor, steps: int) -> Tensor:
        """Data on the straight line between the latents of ``x1`` and ``x2``.

        Args:
            x1, x2: ``(B, D)`` each.
            steps: number of points, at least 2; the first is ``x1``, the last ``x2``.

        Returns:
            ``(steps, B, D)``, without gradient. Latents of an integer flow are rounded, half to even.

        Raises:
            TypeError, ValueError: ``steps`` is no integer or below 2, or shapes that differ.
        """
        steps = as_size("steps", steps, 2, expected="at least 2")
        if x1.shape != x2.shape:
            raise ValueError(f"x2: got shape {tuple(x2.shape)}, expected {tuple(x1.shape)}, the shape of x1")
        (z1, _), (z2, _) = self.flow(x1), self.flow(x2)
        weight = torch.linspace(0, 1, steps, dtype=z1.dtype, device=z1.device).view(-1, 1, 1)
        z = torch.lerp(z1, z2, weight)
        if self.flow.discrete:
            z = z.round()
        x, _ = self.flow.inverse(z.flatten(0, 1))
        return x.unflatten(0, (steps, -1)) if len(x1) else x.view(steps, *x.shape)
