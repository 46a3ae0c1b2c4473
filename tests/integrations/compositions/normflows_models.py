"""The models of normflows around a list of its layers, and what a user calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import normflows as nf
import torch
from torch import nn

from tests.integrations.compositions.compare import Call

CLASSES = torch.tensor([0, 2, 1, 1, 0, 2, 1])


def _classes(x: Any) -> torch.Tensor:
    return CLASSES[: len(x)]


def _plain(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(shape), flows, nf.distributions.DiagGaussian(shape))


def _mixture(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    base = nf.distributions.GaussianMixture(2, shape[0]) if len(shape) == 1 else nf.distributions.GlowBase(shape)
    return nf.NormalizingFlow(base, flows, nf.distributions.DiagGaussian(shape))


def _by_class(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return nf.ClassCondFlow(nf.distributions.ClassCondDiagGaussian(shape, 3), flows)


def _glow_by_class(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return nf.ClassCondFlow(nf.distributions.GlowBase(shape, 3), flows)


def _conditional(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    return nf.ConditionalNormalizingFlow(nf.distributions.DiagGaussian(shape), flows)


def _scales(flows: Sequence[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    half = (shape[0] // 2, *shape[1:])
    bases = [nf.distributions.DiagGaussian(half), nf.distributions.GlowBase(half)]
    return nf.MultiscaleFlow(bases, [[], flows], [nf.flows.Merge()], class_cond=False)


_BOTH: Sequence[tuple[str, Call]] = (
    ("inverse_and_log_det", lambda m, x, _: m.inverse_and_log_det(x)),
    ("forward_and_log_det", lambda m, x, _: m.forward_and_log_det(x)),
    ("inverse", lambda m, x, _: m.inverse(x)),
    ("no_grad forward", lambda m, x, _: m(x)),
)
_PLAIN: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, _: m.log_prob(x)),
    ("forward_kld", lambda m, x, _: m.forward_kld(x)),
    ("inference log_prob", lambda m, x, _: m.log_prob(x)),
    ("sample", lambda m, x, _: m.sample(len(x))),
)
_REVERSE: Sequence[tuple[str, Call]] = (
    ("reverse_kld", lambda m, x, _: m.reverse_kld(len(x))),
    ("reverse_kld without score", lambda m, x, _: m.reverse_kld(len(x), score_fn=False)),
    ("reverse_alpha_div", lambda m, x, _: m.reverse_alpha_div(len(x), dreg=True)),
)
_CLASSED: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, _: m.log_prob(x, _classes(x))),
    ("forward_kld", lambda m, x, _: m.forward_kld(x, _classes(x))),
    ("inference log_prob", lambda m, x, _: m.log_prob(x, _classes(x))),
    ("sample", lambda m, x, _: m.sample(len(x), _classes(x))),
    ("log_prob of one class", lambda m, x, _: m.log_prob(x, CLASSES[:1])),
    ("log_prob of one example", lambda m, x, _: m.log_prob(x[:1], CLASSES[:3])),
)
_SCALED: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, _: m.log_prob(x, None)),
    ("inference log_prob", lambda m, x, _: m.log_prob(x, None)),
    ("inverse_and_log_det", lambda m, x, _: m.inverse_and_log_det(x)),
    ("forward_and_log_det", lambda m, x, _: m.forward_and_log_det(x.chunk(2, 1))),
    ("sample", lambda m, x, _: m.sample(len(x))),
    ("sample at a temperature", lambda m, x, _: m.sample(len(x), temperature=0.7)),
)
_CONTEXT: Sequence[tuple[str, Call]] = (
    ("log_prob", lambda m, x, c: m.log_prob(x, c)),
    ("inverse_and_log_det", lambda m, x, c: m.inverse_and_log_det(x, c)),
    ("sample", lambda m, x, c: m.sample(len(x), c)),
)
MODELS: dict[str, tuple[Any, Sequence[tuple[str, Call]]]] = {
    "plain": (_plain, (*_PLAIN, *_BOTH, *_REVERSE)),
    "mixture": (_mixture, (*_PLAIN, *_BOTH)),
    "by class": (_by_class, _CLASSED),
    "glow by class": (_glow_by_class, _CLASSED),
    "scales": (_scales, _SCALED),
    "conditional": (_conditional, _CONTEXT),
}
VECTOR_MODELS = ("plain", "mixture", "by class", "scales", "conditional")
IMAGE_MODELS = ("plain", "mixture", "by class", "glow by class", "scales")
