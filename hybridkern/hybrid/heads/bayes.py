"""Classification by Bayes' rule, from a base distribution that has a part for each class."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._arguments import short
from hybridkern.distributions import ClassGaussians
from hybridkern.hybrid.heads.base import Classifier


class Bayes(Classifier):
    """``p(y|x) = p(x|y) p(y) / p(x)``, where the flow's base has a density for each class.

    The Jacobian is the same for all classes, so that the latents decide. With ``Joint`` the loss is ``-log p(x, y)``,
    the other factorization ``p(x|y) p(y)`` of the pair; without labels (``SemiSupervised``) the classes are summed
    over.

    Args:
        base: the flow's own base, the very object: the head has no parameters of its own.

    Raises:
        TypeError: no :class:`hybridkern.distributions.ClassGaussians`.

    Source: Izmailov et al. 2020 (arXiv:1912.13025), section 3.

    >>> import torch
    >>> from hybridkern import flows
    >>> from hybridkern.distributions import ClassGaussians
    >>> from hybridkern.hybrid import HybridModel
    >>> flow = flows.RealNVP(2, layers=2, hidden=8)
    >>> flow.base = ClassGaussians(2, classes=3)
    >>> model = HybridModel(flow, Bayes(flow.base))
    >>> model.predict_proba(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(self, base: ClassGaussians) -> None:
        if not isinstance(base, ClassGaussians):
            raise TypeError(f"base: got {short(base)}, expected the flow's base, a distributions.ClassGaussians")
        super().__init__(base.dim, base.classes)
        self._shared = (base,)  # in a tuple, so that its parameters belong to the flow alone

    @property
    def base(self) -> ClassGaussians:
        """The base that the head shares with the flow."""
        return self._shared[0]

    def forward(self, z: Tensor) -> Tensor:
        """``log p(z|y) + log p(y)`` of every class in nats, ``(B, classes)``, for latents ``z`` ``(B, dim)``."""
        return self.base.log_joint(z)

    def log_probabilities(self, prediction: Tensor) -> Tensor:
        """``log p(y|x)`` of every class in nats, ``(B, classes)``, at least float32."""
        return torch.log_softmax(prediction, 1)

    def predict(self, prediction: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64."""
        return prediction.argmax(1)

    def sample_latents(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """``n`` latents of ``p(z|y=label)``, ``(n, dim)``, their deviations times ``temperature``; without gradient.

        Raises:
            TypeError, ValueError: no such class.
        """
        return self.base.sample_of_class(label, n, generator=generator, temperature=temperature)
