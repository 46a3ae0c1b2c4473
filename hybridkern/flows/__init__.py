"""Normalizing flows: ordinary modules with ``forward``, ``inverse``, ``log_prob`` and ``sample``."""

from hybridkern.flows.base import Flow, FlowPass
from hybridkern.flows.check import NonFiniteError, check_finite
from hybridkern.flows.glow import Glow
from hybridkern.flows.idf import IDF
from hybridkern.flows.memory import ReconstructionError
from hybridkern.flows.planar import Planar
from hybridkern.flows.realnvp import RealNVP

__all__ = [
    "IDF",
    "Flow",
    "FlowPass",
    "Glow",
    "NonFiniteError",
    "Planar",
    "RealNVP",
    "ReconstructionError",
    "check_finite",
]
