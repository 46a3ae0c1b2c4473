"""Autoregressive layers as nflows has them and normflows took them over: a network, and a map of each number.

``forward`` is one pass through the network; ``inverse`` as many as there are numbers, each on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hybridkern.integrations._durkan import KIND, Done, kind_of, reason_left, run_known, run_spline, scale_of
from hybridkern.integrations._layer import WIDE, Accelerated, Given, Options, fits, has_own_parts, unsaved
from hybridkern.integrations._made import Known, Levels, is_known, known_levels
from hybridkern.integrations._made_operator import OPERATOR, is_served, run_operator
from hybridkern.integrations._network import network_reason, run_network
from hybridkern.integrations._passes import Passes
from hybridkern.integrations._splines import by_element
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm

Undone = Callable[[Tensor, Tensor, int, Tensor | None], Done]
_LEVELS = "_hybridkern_levels"


class Autoregressive(Accelerated):
    """An operator on all numbers in place of the library's map of each."""

    NETWORKS = ("autoregressive_net",)
    COUPLES = True
    CACHES: ClassVar[tuple[str, ...]] = (_LEVELS, OPERATOR)
    autoregressive_net: Any
    _elementwise_inverse: Any

    @staticmethod
    def network_reason(network: nn.Module, options: Options) -> str:
        """How the network is called, in words for the report."""
        read = options.networks and not options.precision and not options.memory and is_known(network, None)
        if not read:
            return network_reason(network, options)
        how = "one operator" if is_served(network) else "called as it is"
        return f"{how}, inverted unit by unit"

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """``x`` ``(B, D)`` by what the network gave, and the log-determinant; ``None`` where it does not fit."""
        raise NotImplementedError

    def undone(self, y: Tensor) -> Undone | None:
        """The inverse of one feature, for ``y`` ``(B, D)``; ``None`` where the operator does not fit.

        It is a function of the feature's ``y`` ``(B, 1)``, its numbers ``(B, outputs)``, which feature it is, and the
        log-determinant so far.
        """
        raise NotImplementedError

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Data -> latent, as in the library."""
        if not self._serves(inputs):
            done: Done = super().forward(inputs, context)  # type: ignore[misc]
            return done
        params = self._params(inputs, context)
        mapped = self.mapped(inputs, params, inverse=False)
        if mapped is None:
            theirs: Any = self.library_class()
            mapped = theirs.forward(Given(self, autoregressive_net=params), inputs, context)  # type: ignore[arg-type]
        return mapped

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Latent -> data, as in the library, whose networks see at each pass what it makes of the one before."""
        if not self._serves(inputs):
            done: Done = super().inverse(inputs, context)  # type: ignore[misc]
            return done
        done_in_passes = self._in_passes(inputs, context) if self._hybridkern.networks else None
        if done_in_passes is not None:
            return done_in_passes
        outputs, log_det = torch.zeros_like(inputs), None
        for _ in range(inputs.shape[1]):
            params = run_network(self.autoregressive_net, outputs, context, options=self._hybridkern)
            mapped = self.mapped(inputs, params, inverse=True)
            outputs, log_det = self._elementwise_inverse(inputs, params) if mapped is None else mapped
        assert log_det is not None
        return self.settled(outputs), log_det

    def _params(self, x: Tensor, context: Tensor | None) -> Tensor:
        """What the network gives for ``x``."""
        net, options = self.autoregressive_net, self._hybridkern
        if options.networks and context is None and not (options.precision or options.memory):
            params = run_operator(self, net, x)
            if params is not None:
                return params
        return run_network(net, x, context, options=options)

    def settled(self, x: Tensor) -> Tensor:
        """What :meth:`mapped` gave, for someone who may write into it."""
        return x

    def _in_passes(self, y: Tensor, context: Tensor | None) -> Done | None:
        """By the layers of the network; ``None`` where they may not be read."""
        net, options = self.autoregressive_net, self._hybridkern
        plain = not (options.precision or options.memory or torch.compiler.is_compiling())
        if not plain or not is_known(net, context):
            return None
        levels = self._levels(net, y.shape[1])
        undone = None if levels is None or levels.places.device != y.device else self.undone(y)
        if levels is None or undone is None:
            return None
        passes, log_det = Passes(net, levels, y, context), None
        for k, feature in enumerate(levels.order):
            value, log_det = undone(y[:, feature : feature + 1], passes.outputs(k), feature, log_det)
            passes.add(value, k)
        assert log_det is not None
        return passes.result(), log_det

    def _levels(self, net: Any, features: int) -> Levels | None:
        found: Known | None = self.__dict__.get(_LEVELS)
        if found is None or not found.is_of(net, features):
            found = self.__dict__[_LEVELS] = known_levels(net, features)
        return found.levels

    def _serves(self, inputs: Any) -> bool:
        is_vectors = isinstance(inputs, Tensor) and inputs.ndim == 2 and inputs.dtype in WIDE and inputs.numel() > 0
        return is_vectors and not has_own_parts(self)


class AffineAutoregressive(Autoregressive):
    """``affine_coupling`` on all numbers, scale and shift by turns."""

    REPLACEMENT = "affine_coupling on all numbers"
    FORM: ClassVar[CouplingForm]
    features: int

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As :class:`Autoregressive` has it."""
        if x.shape[1] != self.features or not fits(x, params, 2 * self.features):
            return None
        return affine_coupling(x, params, form=self.FORM, inverse=inverse)

    def settled(self, x: Tensor) -> Tensor:
        """As :class:`Autoregressive` has it; the operator keeps what its inverse gives."""
        return unsaved(x, self.FORM, inverse=True)

    def undone(self, y: Tensor) -> Undone | None:
        """As :class:`Autoregressive` has it."""
        if y.shape[1] != self.features:
            return None

        def one(own: Tensor, params: Tensor, _: int, log_det: Tensor | None) -> Done:
            return affine_coupling(own, params, log_det, form=self.FORM, inverse=True)

        return one


class SplineAutoregressive(Autoregressive):
    """``rational_quadratic_spline`` on all numbers."""

    REPLACEMENT = "rational_quadratic_spline on all numbers"
    CACHES = (*Autoregressive.CACHES, KIND)
    TAILS: ClassVar[tuple[str, ...]]
    num_bins: int

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Numbers that the operator does not take."""
        return reason_left(layer, layer.num_bins, cls.TAILS)

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As :class:`Autoregressive` has it."""
        gain = scale_of(self.autoregressive_net, ("hidden_features",))
        kind = None if gain is None else kind_of(self, self.num_bins, gain, x)
        return None if kind is None else run_spline(x, by_element(x, params, kind.spline.raw), kind, inverse)

    def undone(self, y: Tensor) -> Undone | None:
        """As :class:`Autoregressive` has it."""
        gain = scale_of(self.autoregressive_net, ("hidden_features",))
        kind = None if gain is None else kind_of(self, self.num_bins, gain, y)
        if kind is None or not kind.takes(y):
            return None

        def one(own: Tensor, params: Tensor, feature: int, log_det: Tensor | None) -> Done:
            return run_known(own, params.unsqueeze(1), kind.of_one(feature), inverse=True, log_det=log_det)

        return one
