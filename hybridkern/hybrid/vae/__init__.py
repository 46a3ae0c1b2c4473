"""Variational autoencoders in place of a flow: ``log p(x)`` becomes a bound, everything else stays.

:class:`HybridVAE` is a :class:`hybridkern.hybrid.HybridModel` for every objective; :class:`M2`, :class:`M1M2`,
:class:`CCVAE` and :class:`DIVA` learn ``p(x, y)`` from few labels by bounds of their own. Each ``loss`` takes the label
-1 for a row without one.
"""

from hybridkern.hybrid.vae.ccvae import CCVAE
from hybridkern.hybrid.vae.diva import DIVA
from hybridkern.hybrid.vae.likelihoods import Bernoulli, Gaussian, Likelihood, Logistic, LogisticMixture
from hybridkern.hybrid.vae.m2 import M1M2, M2
from hybridkern.hybrid.vae.model import VAE, HybridVAE

__all__ = [
    "CCVAE",
    "DIVA",
    "M1M2",
    "M2",
    "VAE",
    "Bernoulli",
    "Gaussian",
    "HybridVAE",
    "Likelihood",
    "Logistic",
    "LogisticMixture",
]
