"""Scores of being in distribution where ``log p(x)`` itself fails; higher always means "in distribution".

Raw likelihood is known to fail: a flow trained on CIFAR-10 gives SVHN the higher likelihood (Nalisnick et al. 2019,
arXiv:1810.09136), because simple images of the same low-level statistics are cheap to code under any such model. Each
score here repairs one cause; none repairs all.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib

import numpy as np
import torch
from torch import Tensor

from hybridkern.hybrid.metrics import _check


def likelihood_ratio(log_px: Tensor, log_px_background: Tensor) -> Tensor:
    """``log p(x) - log p_background(x)`` in nats, ``(B,)``.

    Fixes: that the background dominates. Most of an image's likelihood is its background and low-level statistics,
    which outliers share; a second model of those alone takes them out, and what remains is what the first model knows
    of the data in particular. The background model is one of the same kind, trained on data whose meaning is destroyed
    (a share of the pixels redrawn at random) or on a broad set of other data.

    Args:
        log_px: of the model, ``(B,)`` in nats.
        log_px_background: of the background model for the same inputs in the same units, ``(B,)``.

    Raises:
        ValueError: the shapes differ.

    Source: Ren et al. 2019 (arXiv:1906.02845), equation 5.
    """
    if log_px.shape != log_px_background.shape:
        raise ValueError(
            f"log_px_background: got shape {tuple(log_px_background.shape)}, expected {tuple(log_px.shape)}, as log_px"
        )
    return log_px - log_px_background


def typicality(log_px: Tensor, reference: Tensor) -> Tensor:
    """``-|log p(x) - mean log p(reference)|`` in nats, ``(B,)``: the distance to what is typical of the training data.

    Fixes: outliers of too high a likelihood. In many dimensions no sample of a distribution lies at its mode; all have
    about the same ``-log p(x)``, its entropy. A constant image under a model of photographs has a high likelihood and
    is not typical. Data that reach the typical likelihood by accident still pass.

    Args:
        log_px: ``(B,)`` in nats, or ``(B, M)`` for ``B`` groups of ``M`` inputs each, judged by their means: the test
            is far stronger for groups that come from one source.
        reference: of data of the training distribution, better not the training data themselves, ``(N,)``.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: ``log_px`` has another number of dimensions, ``reference`` is not ``(N,)`` with a value, or holds a
            NaN.

    Source: Nalisnick et al. 2019 (arXiv:1906.02994), equation 6, with the mean likelihood for the entropy.
    """
    _check.scores("reference", reference)
    _check_float(log_px)
    if log_px.ndim not in (1, 2):
        raise ValueError(f"log_px: got shape {tuple(log_px.shape)}, expected (B,) or (B, M)")
    typical = reference.double().mean()
    mean = log_px.double() if log_px.ndim == 1 else log_px.double().mean(1)
    return -(mean - typical).abs().to(log_px.dtype)


def complexity_corrected(log_px: Tensor, code_bits: Tensor) -> Tensor:
    """``log2 p(x) + L(x)`` in bits, ``(B,)``, at least float32; ``L`` is the length of a general-purpose code of ``x``.

    Fixes: that simple inputs are likely under any model. Likelihood follows the complexity of the input more than its
    meaning; the length of a general lossless code measures that complexity, and its difference to the model's code
    length is a likelihood ratio against the compressor, without a second model to train.

    Args:
        log_px: log-probability of the integers in nats, ``(B,)`` (a density of dequantized data in integer units, or
            of data of ``b`` bits scaled to unit width minus ``D b ln 2``).
        code_bits: ``(B,)``, as from :func:`code_bits`.

    Raises:
        TypeError: ``log_px`` is no floating-point tensor.
        ValueError: the shapes differ.

    Source: Serra et al. 2020 (arXiv:1909.11480), equation 3, with the sign turned.
    """
    _check_float(log_px)
    if log_px.shape != code_bits.shape:
        raise ValueError(
            f"code_bits: got shape {tuple(code_bits.shape)}, expected {tuple(log_px.shape)}, that of log_px"
        )
    wide = log_px.to(torch.promote_types(log_px.dtype, torch.float32))  # float16 ends at 65504 bits
    return wide / math.log(2) + code_bits.to(wide)


def _check_float(log_px: object) -> None:
    if not isinstance(log_px, Tensor) or not log_px.is_floating_point():
        found = log_px.dtype if isinstance(log_px, Tensor) else type(log_px).__name__
        raise TypeError(f"log_px: got {found}, expected a floating-point tensor")


def code_bits(images: Tensor) -> Tensor:
    """Bits that the best of three compressors (zlib, bz2, lzma) needs for each image, ``(B,)`` float64.

    Each is tried on the pixels as they are and on their differences to the left neighbour, modulo 256. The container of
    each format, a few dozen bytes, counts too: it is the same for all images of a size.

    Args:
        images: ``(B, H, W)`` or ``(B, H, W, C)`` uint8.

    Raises:
        TypeError: another dtype.
        ValueError: another number of dimensions.
    """
    if not isinstance(images, Tensor) or images.dtype is not torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images: got {found}, expected a tensor of dtype torch.uint8")
    if images.ndim not in (3, 4):
        raise ValueError(f"images: got shape {tuple(images.shape)}, expected (B, H, W) or (B, H, W, C)")
    pixels = images.cpu().numpy()
    lengths = [
        min(_shortest(image), _shortest(np.diff(image, axis=1, prepend=image.dtype.type(0)))) for image in pixels
    ]
    return torch.tensor(lengths, dtype=torch.float64) * 8


def _shortest(image: np.ndarray) -> int:
    """Bytes of the shortest of the three codes."""
    raw = np.ascontiguousarray(image).tobytes()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    codes = (zlib.compress(raw, 9), bz2.compress(raw), lzma.compress(raw, lzma.FORMAT_RAW, filters=filters))
    return min(map(len, codes))
