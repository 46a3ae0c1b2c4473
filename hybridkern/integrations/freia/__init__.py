"""The layers of FrEIA that hybridkern computes, and why others stay."""

from __future__ import annotations

from torch import nn

from hybridkern.integrations._layer import Accelerated
from hybridkern.integrations.freia import all_in_one, couplings, others

_CLASSES: tuple[type[nn.Module], ...] = (
    all_in_one.AllInOneBlock,
    couplings.GLOWCouplingBlock,
    couplings.RNVPCouplingBlock,
    couplings.AffineCouplingOneSided,
    couplings.ConditionalAffineTransform,
    couplings.NICECouplingBlock,
    others.ActNorm,
    others.PermuteRandom,
    others.IRevNetDownsampling,
    others.IRevNetUpsampling,
)
LAYERS = {kind.library_class(): kind for kind in _CLASSES if issubclass(kind, Accelerated)}

_RUNS_PARTS = "runs its parts, which are decided one by one"
_VIEW = "only views and copies already"
LEFT = {
    "GraphINN": _RUNS_PARTS,
    "SequenceINN": _RUNS_PARTS,
    "ReversibleGraphNet": _RUNS_PARTS,
    "ReversibleSequential": _RUNS_PARTS,
    "Split": _VIEW,
    "Concat": _VIEW,
    "Flatten": _VIEW,
    "Reshape": _VIEW,
    "Fixed1x1Conv": "one convolution already",
    "FixedLinearTransform": "one product already",
    "GINCouplingBlock": "its scales are normalized over the channels",
}
