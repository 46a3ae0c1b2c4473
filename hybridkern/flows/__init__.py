"""Normalizing flows: ordinary modules with ``forward``, ``inverse``, ``log_prob`` and ``sample``."""

from hybridkern.flows.base import Flow, FlowPass
from hybridkern.flows.check import NonFiniteError, check_finite
from hybridkern.flows.compose import Compose
from hybridkern.flows.glow import Glow
from hybridkern.flows.idf import IDF
from hybridkern.flows.maf import IAF, MAF
from hybridkern.flows.memory import ReconstructionError
from hybridkern.flows.nsf import NSF
from hybridkern.flows.planar import Planar
from hybridkern.flows.realnvp import RealNVP
from hybridkern.flows.residual import LipschitzError, Residual
from hybridkern.transforms.residual import ConvergenceError

__all__ = [
    "IAF",
    "IDF",
    "MAF",
    "NSF",
    "Compose",
    "ConvergenceError",
    "Flow",
    "FlowPass",
    "Glow",
    "LipschitzError",
    "NonFiniteError",
    "Planar",
    "RealNVP",
    "ReconstructionError",
    "Residual",
    "check_finite",
]
