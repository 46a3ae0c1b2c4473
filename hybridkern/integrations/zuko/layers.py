"""The lazy transforms of zuko that hybridkern computes; a call of one returns a transform of this package."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform
from zuko.flows import autoregressive, coupling, gaussianization
from zuko.utils import broadcast

from hybridkern._values import transformed
from hybridkern.integrations._features import Arrangement, arrange
from hybridkern.integrations._layer import WIDE, Accelerated, Options, has_own_parts
from hybridkern.integrations._network import run_network
from hybridkern.integrations._reads import readable
from hybridkern.integrations._seen import Seen
from hybridkern.integrations.zuko import _network, transforms
from hybridkern.integrations.zuko._masked import layers_of, masked_layers
from hybridkern.integrations.zuko._passes import undone
from hybridkern.integrations.zuko._plan import Plan, plan_of
from hybridkern.integrations.zuko.univariate import Shift, Univariate, recognized

_KNOWN, _PLAN, _ARRANGEMENT = "_hybridkern_known", "_hybridkern_plan", "_hybridkern_arrangement"

_FEW_PASSES, _FEW_ROWS = 3, 128


class Lazy(Accelerated):
    """A lazy transform whose network gives the parameters of a map of one number that hybridkern knows."""

    NETWORKS = ("hyper",)
    CACHES = (_KNOWN, _PLAN, _ARRANGEMENT, _network.MASKS)
    COUPLES = True
    univariate: Any
    shapes: Any
    total: int
    hyper: Any

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A map of one number that is not known."""
        found = recognized(layer.univariate, layer.shapes)
        return found if isinstance(found, str) else ""

    @classmethod
    def network_reason(cls, network: Any, options: Options) -> str:
        """How the network is called, in words for the report."""
        return _network.reason(network, options)

    def known(self) -> Univariate | None:
        """The map of one number; ``None`` where someone put another one in its place."""
        # keywords of a partial and shapes may be written into
        keywords = getattr(self.univariate, "keywords", None)
        kept: Any = self.__dict__.get(_KNOWN)
        if kept is None or kept[0] is not self.univariate or kept[2] != self.shapes or not _is_same(kept[3], keywords):
            found = recognized(self.univariate, self.shapes)
            known = None if isinstance(found, str) else found
            kept = self.__dict__[_KNOWN] = (self.univariate, known, copy(self.shapes), copy(keywords))
        univariate: Univariate | None = kept[1]
        return univariate

    def raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Raw parameters of all features from those that condition, ``(..., features * total)``."""
        given = x if context is None else torch.cat(broadcast(x, context, ignore=1), dim=-1)
        options = self._hybridkern
        if options.precision or options.memory:
            return run_network(self.hyper, given, options=options)
        if options.networks:
            return _network.run(self, self.hyper, given)
        return self.hyper(given)

    def library_transform(self, context: Tensor | None) -> Any:
        """The library's own transform."""
        return self.library_class().forward(self, context)

    def is_own(self) -> bool:
        """Whether someone changed this instance, so that the library has to run it."""
        return has_own_parts(self) or self.known() is None


def _is_same(first: Any, second: Any) -> bool:
    """Whether keywords are the same objects, or equal numbers."""
    try:
        return bool(first == second)
    except RuntimeError:  # of other tensors, which are no truth
        return False


class MaskedAutoregressiveTransform(Lazy, autoregressive.MaskedAutoregressiveTransform):
    """One call of the network forward; the inverse computes each of its units once."""

    REPLACEMENT = "elementwise map in one operator; the inverse computes each network unit once"
    passes: int

    def forward(self, c: Tensor | None = None) -> Transform:
        """As in the library."""
        if self.is_own():
            return super().forward(c)
        return transforms.AutoregressiveTransform(self, c)

    def in_passes(self, y: Tensor, context: Tensor | None, ladj: bool) -> tuple[Tensor, Tensor | None] | None:
        """The inverse and, if asked for, its log-determinant; ``None`` where the network has to be called."""
        options = self._hybridkern
        looks_back = options.memory is not None and torch.is_grad_enabled()
        if options.precision or looks_back or torch.compiler.is_compiling() or transformed():
            return None
        layers = layers_of(self.hyper)
        if layers is None or not _reads(layers[0].weight, y, context):
            return None
        plan = self._plan(layers, y.shape[-1])
        width = 0 if context is None else context.shape[-1]
        if plan is None or plan.parts[0].context.shape[1] != width or plan.order.device != y.device:
            return None
        if len(plan.features) <= _FEW_PASSES and y.numel() < _FEW_ROWS * y.shape[-1]:
            return None  # calls cost less than taking the network apart
        univariate = self.known()
        assert univariate is not None
        return undone(plan, layers, univariate, y, context, ladj)

    def _plan(self, layers: Any, features: int) -> Plan | None:
        masks = [layer.mask for layer in masked_layers(layers)]
        numbers = features, self.passes, self.total
        kept: Any = self.__dict__.get(_PLAN)
        if kept is None or kept[0] != numbers or not kept[1].holds(masks):
            with torch.inference_mode(False):  # it is kept, for training too
                kept = (numbers, Seen(masks), plan_of(layers, *numbers))
            self.__dict__[_PLAN] = kept
        found: Plan | None = kept[2]
        return found


def _reads(weight: Tensor, y: Tensor, context: Tensor | None) -> bool:
    """Whether these are of one kind, and the context of no larger batch."""
    if y.dtype not in WIDE or y.dtype is not weight.dtype or y.device != weight.device or not y.numel() or not y.ndim:
        return False
    if context is None:
        return True
    if context.dtype is not y.dtype or context.device != y.device or not context.numel() or not context.ndim:
        return False
    return transforms.broadcasts(context, y.shape[:-1])


class GeneralCouplingTransform(Lazy, coupling.GeneralCouplingTransform):
    """The features that stay and the others by slices or one gather."""

    REPLACEMENT = "elementwise map in one operator; features by slices or one gather"
    mask: Tensor

    def forward(self, c: Tensor | None = None) -> Transform:
        """As in the library."""
        if self.is_own():
            return super().forward(c)
        return transforms.CouplingTransform(self, c)

    def readable(self, kept: Tensor) -> Tensor:
        """What the network is given, which might write into it."""
        # a product of matrices copies every second feature, slowly
        return kept.contiguous() if kept.stride(-1) != 1 else readable(self.hyper, kept)

    def arrangement(self) -> Arrangement:
        """Which features stay, as the mask says now."""
        mask = self.mask
        if torch.compiler.is_compiling():
            return arrange(mask.nonzero().squeeze(-1), (~mask).nonzero().squeeze(-1))
        kept: Any = self.__dict__.get(_ARRANGEMENT)
        if kept is None or not kept[0].holds((mask,)):
            with torch.inference_mode(False):
                places = mask.nonzero().squeeze(-1), (~mask).nonzero().squeeze(-1)
            kept = self.__dict__[_ARRANGEMENT] = (Seen((mask,)), arrange(*places))
        found: Arrangement = kept[1]
        return found


class ElementWiseTransform(Lazy, gaussianization.ElementWiseTransform):
    """Without a network for the features."""

    REPLACEMENT = "elementwise map in one operator"
    phi: Any

    @classmethod
    def no_gain(cls, layer: Any, options: Options) -> str:
        """Additions are, and affine maps of trained parameters."""
        found = recognized(layer.univariate, layer.shapes)
        if isinstance(found, Shift):
            return "an addition"
        alone = not isinstance(found, str) and not found.shared and not hasattr(layer, "hyper")
        return "a few parameters, shared by all examples" if alone else ""

    def forward(self, c: Tensor | None = None) -> Transform:
        """As in the library."""
        if self.is_own():
            return super().forward(c)
        if c is not None:
            return transforms.DependentTransform(self, self.raw(c, None), shared=False)
        phi = [p.unsqueeze(-1) if p.ndim == 1 else p for p in self.phi]
        return transforms.DependentTransform(self, torch.cat(phi, -1), shared=True)
