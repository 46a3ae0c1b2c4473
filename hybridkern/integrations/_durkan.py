"""Spline layers as in the code of Durkan et al., which nflows and normflows hold: their attributes, and how they run.

A layer has ``tails``, ``tail_bound``, ``min_bin_width``, ``min_bin_height`` and ``min_derivative``. ``tails`` may be
``None`` (the interval is ``[0, 1]``, and values outside are an error), a name, or in normflows a list of names, one a
feature; ``tail_bound`` is a number, or in normflows a tensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridkern._arguments import is_number
from hybridkern.integrations._seen import Seen
from hybridkern.integrations._splines import Spline, known_spline, scaled_spline, within

KIND = "_hybridkern_spline"  # its place in the ``__dict__`` of a layer
_NAMES = ("linear", "circular")
Done = tuple[Tensor, Tensor]


class Kind(NamedTuple):
    """What a layer computes.

    Attributes:
        spline: as the operator takes it; on ``[-1, 1]`` where ``bound`` is a tensor.
        bound: half the width of the interval of each feature; ``None`` where all have that of ``spline``.
        fixed, tied: of each feature, ``(D, 1)``, whether the derivatives at its ends are 1, and whether they are one
            and the same; ``None`` where ``spline`` says it for all.
    """

    spline: Spline
    bound: Tensor | None
    fixed: Tensor | None
    tied: Tensor | None

    def takes(self, x: Tensor) -> bool:
        """Whether the library would: outside a box it raises an error. Looks at the values then."""
        return self.fixed is not None or self.spline.tails != "box" or within(x, self.spline.interval)

    def of_one(self, feature: int) -> Kind:
        """That of one feature."""
        own = slice(feature, feature + 1)
        bound = self.bound if self.bound is None or self.bound.numel() == 1 else self.bound[own]
        return Kind(self.spline, bound, *(None if ends is None else ends[own] for ends in (self.fixed, self.tied)))


def scale_of(network: object, names: Sequence[str] = ("hidden_features", "hidden_channels")) -> float | None:
    """What raw widths and heights are multiplied by; ``None`` where that is not a number.

    Args:
        network: that of a layer.
        names: the attributes of its width that the layer looks for; without any nothing is multiplied.
    """
    width = next((getattr(network, name) for name in names if hasattr(network, name)), 1)
    return float(width) ** -0.5 if is_number(width) and width > 0 else None


def warn_unscaled(network: object) -> None:
    """As the couplings of both libraries do where they do not know the width of their network."""
    if not (hasattr(network, "hidden_features") or hasattr(network, "hidden_channels")):
        warnings.warn("Inputs to the softmax are not scaled down: initialization might be bad.", stacklevel=4)


def reason_left(layer: Any, bins: Any, names: Sequence[str]) -> str:
    """Why the operator does not compute ``layer``; empty where it does.

    Args:
        layer: with the attributes that this module names.
        bins: of each element.
        names: what the library lets ``tails`` be, beside ``None``; with ``"circular"`` also a list of them.
    """
    tails = layer.tails
    if isinstance(tails, (list, tuple)):
        known = "circular" in names and all(name in _NAMES for name in tails)
    else:
        known = tails is None or tails in names
    if not known:
        return f"tails={tails!r}, which its library does not know either"
    found = _spline(layer, bins, 1.0)
    return found if isinstance(found, str) else ""


def _spline(layer: Any, bins: Any, gain: float) -> Spline | str:
    tails = layer.tails
    bound = (0.0, 1.0) if tails is None else 1.0 if isinstance(layer.tail_bound, Tensor) else layer.tail_bound
    return known_spline(
        bins,
        bound,
        tails if isinstance(tails, str) else "box",
        min_width=layer.min_bin_width,
        min_height=layer.min_bin_height,
        min_derivative=layer.min_derivative,
        gain=gain,
    )


def kind_of(layer: Any, bins: Any, gain: float, x: Tensor) -> Kind | None:
    """What ``layer`` computes on ``x``, remembered; ``None`` where that is not for the operator."""
    tails, bound = layer.tails, layer.tail_bound
    is_tensor = isinstance(bound, Tensor)
    key = (
        *(bins, gain, tuple(tails) if isinstance(tails, list) else tails),
        *(layer.min_bin_width, layer.min_bin_height, layer.min_derivative),
        *(None if is_tensor else bound, x.device, x.dtype, x.ndim, x.shape[1]),
    )
    if torch.compiler.is_compiling():
        return _made(layer, bins, gain, x)
    bounds = (bound,) if is_tensor else ()
    found: tuple[Any, Seen, Kind | None] | None = layer.__dict__.get(KIND)
    if found is None or found[0] != key or not found[1].holds(bounds):
        with torch.inference_mode(False), torch.no_grad():  # it is kept, for training too
            found = layer.__dict__[KIND] = key, Seen(bounds), _made(layer, bins, gain, x)
    return found[2]


def _made(layer: Any, bins: Any, gain: float, x: Tensor) -> Kind | None:
    spline, tails = _spline(layer, bins, gain), layer.tails
    if isinstance(spline, str):
        return None
    bound = layer.tail_bound if tails is not None and isinstance(layer.tail_bound, Tensor) else None
    if bound is not None:
        if x.ndim != 2 or bound.numel() not in (1, x.shape[1]) or bound.shape[-1:] != bound.shape:
            return None
        bound = bound.detach().to(x).clone()
        if not torch.compiler.is_compiling() and not bool((bound > 0).all()):
            return None
    if not isinstance(tails, (list, tuple)):
        return Kind(spline, bound, None, None)
    if x.ndim != 2 or len(tails) != x.shape[1]:
        return None
    fixed, tied = (torch.tensor([[name == kind] for name in tails], device=x.device) for kind in _NAMES)
    return Kind(spline, bound, fixed, tied)


def run_spline(x: Tensor, raw: Tensor | None, kind: Kind | None, inverse: bool) -> Done | None:
    """``kind`` on every element, and the log-determinant; ``None`` where the operator does not fit.

    Args:
        x: ``(B, D)``, or images ``(B, C, *S)``.
        raw: raw numbers, as the operator takes them; ``None``: they do not fit.
        kind: what :func:`kind_of` said.
        inverse: latent -> data.
    """
    if raw is None or kind is None or not kind.takes(x):
        return None  # the library says what is wrong
    return run_known(x, raw, kind, inverse)


def run_known(x: Tensor, raw: Tensor, kind: Kind, inverse: bool, log_det: Tensor | None = None) -> Done:
    """:func:`run_spline` where all is known to fit, added to ``log_det``."""
    spline = kind.spline
    if kind.fixed is None:
        return scaled_spline(x, raw, spline, inverse, kind.bound, log_det)
    assert kind.tied is not None
    raw = _with_ends(raw, spline, kind.fixed, kind.tied)
    y, log_det = scaled_spline(x, raw, spline, inverse, kind.bound, log_det)
    # with a list of tails the library makes zeros of what lies outside
    return torch.where(x.abs() <= (spline.interval[1] if kind.bound is None else kind.bound), y, 0.0), log_det


def _with_ends(raw: Tensor, spline: Spline, fixed: Tensor, tied: Tensor) -> Tensor:
    """Raw numbers whose derivatives at the ends are those of each feature's tails."""
    inner = 2 * spline.bins + 1
    first, last = raw[..., inner - 1 : inner], raw[..., -1:]
    one = math.log(math.expm1(1 - spline.form.min_derivative))
    ends = torch.where(fixed, one, first), torch.where(fixed, one, torch.where(tied, first, last))
    return torch.cat([raw[..., : inner - 1], ends[0], raw[..., inner:-1], ends[1]], -1)
