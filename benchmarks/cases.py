"""Every benchmark, in the order of the tables, with its targets."""

from __future__ import annotations

from functools import partial

from benchmarks import (
    adamax,
    affine_coupling,
    affine_coupling_actnorm,
    coupling_network,
    digits_tutorial,
    discretized_logistic,
    discretized_logistic_mixture,
    gaussian_log_prob,
    lipswish,
    masked_network,
    paired_conv1x1,
    rational_quadratic_spline,
    rounding_coupling,
)
from benchmarks._case import Case, operator_case
from benchmarks._results import COUPLING_NETWORK, OPERATORS, PARTS

_IMAGES = (256, 6, 32, 32)
_SMALL = (64, 32)


def _large() -> list[Case]:
    glow = partial(affine_coupling.work, *_IMAGES)
    logistic = partial(discretized_logistic.work, 256, 3072)
    mixture = partial(discretized_logistic_mixture.work, 64, 3072)
    return [
        operator_case(
            "affine_coupling glow (256,6,32,32)",
            glow,
            eager=3.5,
            compiled=2.0,
            backward=False,
            floor=True,
            floor_target=0.7,
        ),
        operator_case("affine_coupling glow (256,6,32,32)", glow, eager=4.0, compiled=2.5, floor=True),
        operator_case(
            "rounding_coupling (256,6,32,32)",
            partial(rounding_coupling.work, *_IMAGES),
            eager=2.5,
            compiled=1.5,
            floor=True,
        ),
        operator_case("discretized_logistic (256,3072), parameters (1,3072)", logistic, eager=6.0, compiled=3.0),
        operator_case("discretized_logistic_mixture K=5 (64,3072)", mixture, eager=6.0, compiled=3.0),
    ]


def _small() -> list[Case]:
    works = {
        "affine_coupling glow (64,32)": affine_coupling.work,
        "rounding_coupling (64,32)": rounding_coupling.work,
        "discretized_logistic (64,32), parameters (1,32)": discretized_logistic.work,
        "discretized_logistic_mixture K=5 (64,32)": discretized_logistic_mixture.work,
        "gaussian_log_prob (64,32), parameters (1,32)": gaussian_log_prob.work,
    }
    return [operator_case(name, partial(work, *_SMALL), eager=1.8) for name, work in works.items()]


def parts() -> list[Case]:
    """The operators that stand for several pieces of a model or of its training."""
    works = {
        "affine_coupling_actnorm (64,32)": partial(affine_coupling_actnorm.work, *_SMALL),
        "paired_conv1x1 (64,6,16,16)": partial(paired_conv1x1.work, 64, 6, 16, 16),
    }
    return [
        *(operator_case(name, work, eager=1.0) for name, work in works.items()),
        operator_case(
            "lipswish (1024,512) with its gradient", partial(lipswish.work, 1024, 512), eager=4.0, compile_formula=False
        ),
        rational_quadratic_spline.case(1024, 32, eager=15.0, compiled=4.0, backward=False),
        rational_quadratic_spline.case(1024, 32, eager=15.0, compiled=4.0),
        operator_case("masked_network (256,16) hidden 64", partial(masked_network.work, 256, 16, 64), eager=1.5),
        adamax.case(60, 64, 64, target=1.0),
    ]


def operators() -> list[Case]:
    """The operators, and the step of the tutorial that they were made for."""
    digits = [digits_tutorial.without_networks(lattice, target=2.5) for lattice in ("tutorial", "exact")]
    steps = [digits_tutorial.training_step(lattice, target=1.15) for lattice in ("tutorial", "exact")]
    return [*_large(), *_small(), *digits, *steps]


def by_file() -> dict[str, list[Case]]:
    """The benchmarks, by the file that their results go to; nothing is allocated before a case is built."""
    return {OPERATORS: operators(), COUPLING_NETWORK: coupling_network.cases(), PARTS: parts()}
