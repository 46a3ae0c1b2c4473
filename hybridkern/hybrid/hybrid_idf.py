"""Hybrid integer flow with the interface of the class that tutorials know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_number, built, short
from hybridkern._calls import is_watched
from hybridkern._finite import readable
from hybridkern._precision import wide
from hybridkern._saved.built import Saved
from hybridkern.distributions import standard_logistic
from hybridkern.flows.base import check_count, integers_as
from hybridkern.hybrid._labels import log_prob_of_labels
from hybridkern.ops.rounding_coupling_mirrored.operator import rounding_coupling_mirrored
from hybridkern.transforms.lattice import Lattice
from hybridkern.transforms.rounding_coupling import update_part


class HybridIDF(Saved, nn.Module):
    """Integer flow, discretized-logistic prior and classifier in one module; drop-in for the tutorial's class.

    Names, semantics and ``state_dict`` are those of that class: parameters ``beta`` ``(num_flows,)``, ``mean`` and
    ``logscale`` ``(1, D)``, networks ``t`` or ``t_a`` to ``t_d``, ``classnet``. What differs: the prior is exact in
    both tails, the classifier's logarithm is that of its logits, and by default the flow stays on the integers.

    Each flow cuts its input along dim 1 and shifts: with one kind of network the second half from the first; with
    four, the quarters in turn, each from the other three. Then it reverses the order of the dimensions.

    ``lattice="exact"`` shifts by ``round(beta * t)``: latents are integers, the inverse is exact in evaluation mode
    or without gradients (:mod:`hybridkern.transforms.lattice`), ``log_prior(f(x))`` is a log-probability.
    ``lattice="tutorial"`` shifts by ``beta * round(t)``: latents leave the integers as soon as ``beta`` is learnt,
    the inverse errs by rounding, and the "likelihood" does not sum to 1 over the data.

    Args:
        netts: one or four functions that build a network: ``(B, D/2) -> (B, D/2)``, or ``(B, 3D/4) -> (B, D/4)``.
            Each is called ``num_flows`` times.
        classnet: ``(B, D) -> (B, K)`` class probabilities. An ``nn.Sequential`` that ends in ``nn.Softmax`` is run up
            to its logits, so that their log-softmax cannot overflow; one that ends in ``nn.LogSoftmax`` gives the
            logarithms itself. On a CPU rows that are no probabilities are an error where the classifier is used.
        num_flows: number of flows.
        alpha: weight of ``-log p(x)`` in the loss; the tutorial takes ``1/D``.
        D: dimensions of one example.
        lattice: ``"exact"`` or ``"tutorial"``.

    Raises:
        TypeError, ValueError: neither one nor four functions, or another argument of the wrong type or range.

    Source: Tomczak, "Deep Generative Modeling" (2022), chapter 5; Tomczak 2020 (arXiv:2011.15056); Hoogeboom et
    al. 2019 (arXiv:1905.07376).
    """

    _settings = ("alpha",)

    def __init__(
        self,
        netts: Sequence[Callable[[], nn.Module]],
        classnet: nn.Module,
        num_flows: int,
        alpha: float = 1.0,
        D: int = 2,  # noqa: N803
        lattice: str = "exact",
    ) -> None:
        super().__init__()
        _check_functions(netts)
        if not isinstance(classnet, nn.Module):
            raise TypeError(f"classnet: got {short(classnet)}, expected an nn.Module")
        D = check_count("D", D, 2)  # noqa: N806
        num_flows = check_count("num_flows", num_flows, 1)
        self.D, self.num_flows = D, num_flows
        self.lattice = lattice
        self._lattice = Lattice(lattice)
        self.alpha = as_number("alpha", alpha)
        self.idf_git = len(netts)
        self._names = ("t",) if len(netts) == 1 else ("t_a", "t_b", "t_c", "t_d")
        for name, build in zip(self._names, netts, strict=True):
            setattr(self, name, nn.ModuleList(built("netts", build()) for _ in range(num_flows)))
        self.beta = nn.Parameter(torch.zeros(num_flows))
        self.classnet = classnet
        self.mean = nn.Parameter(torch.zeros(1, D))
        self.logscale = nn.Parameter(torch.ones(1, D))
        self._sizes = _chunk_sizes(D, 2 if len(netts) == 1 else 4)
        self._halves_equal = len(self._sizes) == 2 and self._sizes[0] == self._sizes[1]

    def _run(self, name: str, x: Tensor, inverse: bool) -> Tensor:
        x = integers_as(name, x, (self.D,), self.mean.dtype, self.mean.device)
        return self._lattice.run(partial(self._transform, inverse), name, x, self.training)

    def _transform_fused(self, x: Tensor) -> Tensor:
        """Forward of a training step with two equal halves: one operator a flow beside its network."""
        a, b = x.chunk(2, 1)
        *nets, last = getattr(self, self._names[0])
        for flow, net in enumerate(nets):
            a, b = rounding_coupling_mirrored(a, b, _as(net(a), a), self.beta, flow, lattice=self.lattice)
        return rounding_coupling_mirrored(a, b, _as(last(a), a), self.beta, len(nets), lattice=self.lattice, join=True)

    def _transform(self, inverse: bool, x: Tensor, exact: bool) -> Tensor:
        """The flows, with the parts kept apart and in data order.

        Reversing the dimensions after each flow would move every value twice a pair of flows. Instead the values
        stay where they are; every second network is shown them mirrored, and its translation mirrored back.
        """
        if self._halves_equal and not (inverse or exact):
            return self._transform_fused(x)
        odd = self.num_flows % 2 == 1
        parts = list((x.flip(1) if inverse and odd else x).split(self._sizes, 1))
        betas = self.beta.unbind(0)
        nets = [getattr(self, label) for label in self._names]
        # of two parts only the second is updated
        steps = list(enumerate(nets, start=1 if len(nets) == 1 else 0))
        order = range(self.num_flows)
        for flow in reversed(order) if inverse else order:
            mirrored = flow % 2 == 1
            parts = self._regroup(parts, mirrored)
            for index, kind in reversed(steps) if inverse else steps:
                place = len(parts) - 1 - index if mirrored else index
                update_part(
                    parts, place, kind[flow], betas[flow],
                    lattice=self.lattice, inverse=inverse, exact=exact, mirrored=mirrored,
                )  # fmt: skip
        y = torch.cat(parts, 1)
        return y.flip(1) if odd and not inverse else y

    def _regroup(self, parts: list[Tensor], mirrored: bool) -> list[Tensor]:
        """``parts`` cut anew where parts of unequal size, seen mirrored, end elsewhere."""
        sizes = self._sizes[::-1] if mirrored else self._sizes
        if self._sizes == self._sizes[::-1]:
            return parts
        return list(torch.cat(parts, 1).split(sizes, 1))

    def f(self, x: Tensor) -> Tensor:
        """Data -> latent: ``(B, D)`` integers (float dtype of the parameters, or any integer dtype) to ``(B, D)``.

        Raises:
            TypeError: another type or dtype.
            ValueError: another shape; on the exact lattice also a value that is no integer or too large for the
                dtype, see :meth:`hybridkern.flows.IDF.forward`.
        """
        return self._run("x", x, inverse=False)

    def f_inv(self, z: Tensor) -> Tensor:
        """Latent -> data, ``(B, D)``; errors as for :meth:`f`."""
        return self._run("z", z, inverse=True)

    def _class_log_probs(self, z: Tensor) -> Tensor:
        net = self.classnet
        # the softmax is left out, and the sequence not called: not where someone watches or changed the two
        if type(net) is nn.Sequential and len(net) and _is_softmax(net[-1]) and not is_watched((net, net[-1])):
            for layer in list(net)[:-1]:
                z = layer(z)
            return torch.log_softmax(z, 1)
        given: Tensor = net(z)
        if _ends_in_log_softmax(net):
            return given
        if readable(given):
            _check_probabilities(given)
        return torch.log(given)

    def classify(self, x: Tensor) -> Tensor:
        """The most probable class of each example, ``(B,)`` int64."""
        return self._class_log_probs(self.f(x)).argmax(1)

    def class_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """``-log p(y|x)`` in nats, ``(B,)``, for labels ``y`` ``(B,)``; ValueError for a label out of range."""
        return -log_prob_of_labels(self._class_log_probs(self.f(x)), y)

    def log_prior(self, x: Tensor) -> Tensor:
        """Log-probability of latents ``x`` ``(B, D)`` under the prior in nats, ``(B,)``."""
        return ops.discretized_logistic_log_prob(x, self.mean, self.logscale, reduction="sum")

    @torch.no_grad()
    def prior_sample(
        self,
        batchSize: int,  # noqa: N803
        D: int | None = None,  # noqa: N803
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Integer latents from the prior, ``(batchSize, D)``.

        Args:
            batchSize: number of samples.
            D: taken for compatibility; the number of dimensions is the model's own, as in the tutorial.
            generator: source of randomness; ``None`` is torch's default generator.
        """
        noise = standard_logistic((batchSize, self.D), self.mean, generator)
        return torch.round(wide(self.logscale).exp() * noise + wide(self.mean)).to(self.mean.dtype)

    @torch.no_grad()
    def sample(self, batchSize: int, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: N803
        """Samples of ``p(x)``, ``(batchSize, 1, D)``, without gradient."""
        z = self.prior_sample(batchSize, generator=generator)
        return self.f_inv(z).view(batchSize, 1, self.D)

    def forward(self, x: Tensor, y: Tensor, reduction: str = "avg") -> Tensor:
        """The training loss ``-log p(y|x) - alpha * log p(x)`` in nats, in one pass of the flow.

        Args:
            x: integers ``(B, D)``.
            y: labels ``(B,)``.
            reduction: ``"avg"`` (mean over the batch) or ``"sum"``.

        Raises:
            TypeError, ValueError: as :meth:`f` and :meth:`class_loss`; or an unknown ``reduction``.
        """
        if reduction not in ("avg", "sum"):
            raise ValueError(f"reduction: got {reduction!r}, expected 'avg' or 'sum'")
        z = self.f(x)
        log_py = log_prob_of_labels(self._class_log_probs(z), y)
        loss = -torch.add(log_py, self.log_prior(z), alpha=self.alpha)
        return loss.sum() if reduction == "sum" else loss.mean()


def _check_functions(netts: object) -> None:
    if not isinstance(netts, (list, tuple, nn.ModuleList)) or not all(map(callable, netts)):
        raise TypeError(f"netts: got {short(netts)}, expected a list of one or four functions that build a network")
    if len(netts) not in (1, 4):
        raise ValueError(f"netts: got {len(netts)} functions, expected 1 or 4")


def _chunk_sizes(dim: int, parts: int) -> list[int]:
    """Sizes into which ``torch.chunk`` cuts ``dim``, which the tutorial's networks are built for."""
    sizes = [len(chunk) for chunk in torch.arange(dim).chunk(parts)]
    if len(sizes) != parts:
        raise ValueError(f"D: got {dim}, expected a number of dimensions that torch.chunk cuts into {parts} parts")
    return sizes


def _as(t: Tensor, like: Tensor) -> Tensor:
    """``t`` in the dtype of ``like``, which autocast may have lowered; a comparison is cheaper than a call."""
    return t if t.dtype is like.dtype else t.to(like.dtype)


def _ends_in_log_softmax(net: nn.Module) -> bool:
    while type(net) is nn.Sequential and len(net) and "forward" not in net.__dict__:
        net = net[-1]
    return type(net) is nn.LogSoftmax and net.dim in (1, -1, None) and "forward" not in net.__dict__


def _check_probabilities(p: Tensor) -> None:
    tolerance = 1e-3 if p.dtype in (torch.float32, torch.float64) else 2e-2
    # NaN is not looked for here: it comes from x, or from a training that diverged
    wrong = ((p.detach().sum(1) - 1).abs() > tolerance) | (p.detach() < 0).any(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"classnet: got {[round(v, 4) for v in p[row, :4].tolist()]}{' and more' if p.shape[1] > 4 else ''} for "
            f"row {row}, expected class probabilities of sum 1: end it in nn.Softmax(dim=1), or an nn.Sequential in "
            "nn.LogSoftmax(dim=1)"
        )


def _is_softmax(layer: nn.Module) -> bool:
    return type(layer) is nn.Softmax and layer.dim in (1, -1)
