"""Autoregressive layer: every number is mapped by parameters computed from the numbers before it."""

from __future__ import annotations

from torch import Tensor

from hybridkern._arguments import as_flag
from hybridkern._saved.built import Built
from hybridkern.nets import MADE
from hybridkern.nets.passes import Passes, WholePasses, in_blocks
from hybridkern.transforms._described import OfElement
from hybridkern.transforms.elements import Element


class Autoregressive(Built, OfElement):
    """``y_i = f(x_i; net(x_1, ..., x_{i-1}))`` in the order of the network; one direction in one pass, one in ``dim``.

    The slow direction computes in each pass what the next number needs and nothing else; of a
    :class:`~hybridkern.nets.MADE` each hidden unit once, so that its arithmetic is that of one pass. A network whose
    layers are watched by hooks or have been replaced is called as a whole, once per number. The ``state_dict`` says of
    which element and direction it is, and that of another is refused.

    Args:
        net: a :class:`~hybridkern.nets.MADE` of ``element.outputs`` numbers per feature.
        element: the map of one number.
        inverted: the slow direction is data -> latent, as in inverse autoregressive flows, and not latent -> data.

    Raises:
        TypeError, ValueError: an argument of another type, or a network of another number of outputs.

    Source: Papamakarios et al. 2017 (arXiv:1705.07057), equations 2 to 4; ``inverted``: Kingma et al. 2016
    (arXiv:1606.04934).
    """

    def __init__(self, net: MADE, element: Element, *, inverted: bool = False) -> None:
        super().__init__()
        if not isinstance(net, MADE):
            raise TypeError(f"net: got {type(net).__name__}, expected a MADE")
        if net.outputs != element.outputs:
            raise ValueError(f"net: got {net.outputs} outputs a feature, expected {element.outputs}")
        self.net, self.element = net, element
        self.inverted = as_flag("inverted", inverted)

    def _choices(self) -> tuple[float, ...]:
        return (float(self.inverted),)

    def forward(
        self, x: Tensor, log_det: Tensor | None = None, *, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Data -> latent, or back.

        Args:
            x: ``(B, dim)``.
            log_det: running total in nats, ``(B,)``; ``None`` starts at zero.
            context: ``(B, width)``, or ``None`` without one.
            inverse: latent -> data instead of data -> latent.

        Returns:
            ``y`` like ``x``, and ``log_det`` plus this layer's, of the direction computed, ``(B,)``.

        Raises:
            TypeError, ValueError: another type or shape.
        """
        if inverse != self.inverted:
            self.net.check(x, context)
            return self._undone(x, log_det, context)
        return self.element(x, self.net(x, context), log_det)

    def _undone(self, y: Tensor, log_det: Tensor | None, context: Tensor | None) -> tuple[Tensor, Tensor]:
        net = self.net
        if net.features == 1:
            return self.element(y, net(y, context), log_det, inverse=True)
        passes = Passes(net, y, context) if in_blocks(net) else WholePasses(net, net.order, net.outputs, y, context)
        for k, feature in enumerate(net.order):
            params = passes.outputs(k)
            value, log_det = self.element(y[:, feature : feature + 1], params, log_det, inverse=True)
            passes.add(value)
        assert log_det is not None
        return passes.result(), log_det
