"""Heads: the distribution of the target given the latents of a flow."""

from hybridkern.hybrid.heads.base import Classifier, Head, Regressor
from hybridkern.hybrid.heads.bayes import Bayes
from hybridkern.hybrid.heads.bayesian_linear import BayesianLinear
from hybridkern.hybrid.heads.bayesian_logistic import BayesianLogistic
from hybridkern.hybrid.heads.categorical import Categorical
from hybridkern.hybrid.heads.gaussian import Gaussian

__all__ = ["Bayes", "BayesianLinear", "BayesianLogistic", "Categorical", "Classifier", "Gaussian", "Head", "Regressor"]
