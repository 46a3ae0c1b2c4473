"""The layers of FrEIA that hybridkern computes, and why others stay."""

from __future__ import annotations

from FrEIA.modules import InvertibleModule
from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.freia import all_in_one, couplings, others, two_sided

_CLASSES: tuple[type[nn.Module], ...] = (
    all_in_one.AllInOneBlock,
    two_sided.GLOWCouplingBlock,
    two_sided.RNVPCouplingBlock,
    two_sided.NICECouplingBlock,
    couplings.AffineCouplingOneSided,
    couplings.ConditionalAffineTransform,
    others.PermuteRandom,
    others.IRevNetDownsampling,
    others.IRevNetUpsampling,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}
ROOTS = (InvertibleModule,)

CONTAINERS = {"GraphINN", "SequenceINN", "ReversibleGraphNet", "ReversibleSequential"}
_VIEW = "consists of views and copies only"
_ONE_PASS = "already one PyTorch operation per pass over the data"
NO_GAIN = {
    "Split": _VIEW,
    "Concat": _VIEW,
    "Flatten": _VIEW,
    "Reshape": _VIEW,
    "ActNorm": _ONE_PASS,
    "Fixed1x1Conv": _ONE_PASS,
    "FixedLinearTransform": _ONE_PASS,
    "LearnedElementwiseScaling": _ONE_PASS,
    "HaarDownsampling": _ONE_PASS,
    "HaarUpsampling": _ONE_PASS,
    "InvAutoFC": _ONE_PASS,
    "InvAutoConv2D": _ONE_PASS,
}
