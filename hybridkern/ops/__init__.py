"""Fused functional operators: differentiable, on every backend, transparent to ``torch.compile(fullgraph=True)``."""

from hybridkern.ops import _autograd, _backends, _gpu
from hybridkern.ops.adamax.operator import adamax_step
from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.ops.affine_coupling.operator import affine_coupling, affine_coupling_backward_from_output
from hybridkern.ops.affine_coupling_actnorm.operator import affine_coupling_actnorm
from hybridkern.ops.coupling_network.operator import coupling_network
from hybridkern.ops.discretized_logistic.operator import discretized_logistic_log_prob
from hybridkern.ops.discretized_logistic_mixture.operator import discretized_logistic_mixture_log_prob
from hybridkern.ops.gaussian_log_prob.operator import gaussian_log_prob
from hybridkern.ops.lipswish.operator import clipswish, lipswish
from hybridkern.ops.masked_network.operator import masked_network
from hybridkern.ops.paired_conv1x1.operator import paired_conv1x1
from hybridkern.ops.rational_quadratic_spline.form import SplineForm
from hybridkern.ops.rational_quadratic_spline.operator import rational_quadratic_spline
from hybridkern.ops.rounding_coupling.operator import rounding_coupling
from hybridkern.ops.rounding_coupling_mirrored.operator import rounding_coupling_mirrored

__all__ = [
    "CouplingForm",
    "SplineForm",
    "adamax_step",
    "affine_coupling",
    "affine_coupling_actnorm",
    "affine_coupling_backward_from_output",
    "clipswish",
    "coupling_network",
    "discretized_logistic_log_prob",
    "discretized_logistic_mixture_log_prob",
    "gaussian_log_prob",
    "lipswish",
    "masked_network",
    "paired_conv1x1",
    "rational_quadratic_spline",
    "rounding_coupling",
    "rounding_coupling_mirrored",
]

_gpu.attach()  # after the operators above are registered
_autograd.refuse_others()
_backends.set_default()
