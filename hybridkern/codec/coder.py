"""Streams of symbols: the compiled coder, or the one in Python where that was not built. Both give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridkern._extension import extension
from hybridkern.codec import reference
from hybridkern.codec.reference import Parameters
from hybridkern.codec.tables import LEAST_LOG_SCALE, LOGIT_STEPS, MEAN_STEPS, SCALE_STEPS, SCALES, tables
from hybridkern.ops._backends import backend_names

MOST_COMPONENTS = 32
_MOST_MEAN = 1 << 30


def on_grid(logits: np.ndarray | None, means: np.ndarray, log_scales: np.ndarray) -> Parameters:
    """Parameters in float64, ``(n, K, D)`` or ``(n, D)`` each, on the grid of the coder; NaN counts as 0."""
    if logits is None:
        logits, means, log_scales = np.zeros_like(means)[:, None], means[:, None], log_scales[:, None]
    relative = np.nan_to_num(logits - logits.max(1, keepdims=True), neginf=-1e6)
    return Parameters(
        np.rint(np.clip(relative * LOGIT_STEPS, -256, 0)).astype(np.int32),
        np.rint(np.clip(np.nan_to_num(means) * MEAN_STEPS, -_MOST_MEAN, _MOST_MEAN)).astype(np.int32),
        np.rint(np.clip((np.nan_to_num(log_scales) - LEAST_LOG_SCALE) * SCALE_STEPS, 0, SCALES - 1)).astype(np.int32),
    )


def _checked(parameters: Parameters) -> Parameters:
    logits, means, scales = (np.ascontiguousarray(table, np.int32) for table in parameters)
    if not 1 <= means.shape[1] <= MOST_COMPONENTS:
        raise ValueError(f"parameters: got {means.shape[1]} components, expected 1 to {MOST_COMPONENTS}")
    if not (_within(means, -_MOST_MEAN, _MOST_MEAN) and _within(scales, 0, SCALES - 1)):
        raise ValueError("parameters: got a mean or scale beyond the grid")
    return Parameters(logits, means, scales)


def _within(table: np.ndarray, least: int, most: int) -> bool:
    return not table.size or bool(least <= table.min() and table.max() <= most)


def _compiled() -> Any:
    """The compiled coder; ``None`` where it was not built, or the reference was asked for."""
    return None if backend_names()[:1] == ("reference",) else extension.module


def encode(values: np.ndarray, seeds: np.ndarray, parameters: Parameters) -> list[bytes]:
    """A stream for each row of ``values``, int32 ``(N, D)``, under ``parameters`` ``(N or 1, K, D)``.

    ``seeds``, uint32 ``(N,)``, come back from the decoder: checksums, which so cost nothing.
    """
    values, parameters = np.ascontiguousarray(values, np.int32), _checked(parameters)
    seeds = np.ascontiguousarray(seeds, np.uint32)
    module = _compiled()
    if module is None:
        return reference.encode(values, seeds, parameters)
    streams: list[bytes] = module.encode_streams(values, seeds, *parameters, *tables())
    return streams


class Decoders:
    """Reads a batch of streams side by side, some symbols of each at a time.

    What a damaged stream gives is 0 from there on; :meth:`seeds` says which streams were sound.
    """

    def __init__(self, streams: Sequence[bytes]) -> None:
        self._module = _compiled()
        if self._module is not None:
            self._decoders = self._module.StreamDecoders(list(streams))
        else:
            self._decoders = [reference.Decoder(stream) for stream in streams]
            self._sound = [True] * len(streams)

    def pop(self, parameters: Parameters) -> np.ndarray:
        """The next ``D`` values of each stream, int32 ``(N, D)``, under ``parameters`` ``(N or 1, K, D)``."""
        parameters = _checked(parameters)
        if self._module is not None:
            found: np.ndarray = self._decoders.pop(*parameters, *tables())
            return found
        size = parameters.means.shape[2]
        values = np.zeros((len(self._decoders), size), np.int32)
        for i, decoder in enumerate(self._decoders):
            row = Parameters(*(table[i : i + 1] if len(table) > 1 else table for table in parameters))
            try:
                if self._sound[i]:
                    values[i] = reference.decode([decoder], row, size)[0]
            except reference.DamagedStreamError:
                self._sound[i] = False
        return values

    def seeds(self) -> list[int]:
        """What each stream was encoded with, once all of it was read; -1 where there is more, or it is damaged."""
        if self._module is not None:
            return list(self._decoders.seeds())
        return [
            decoder.state if sound and decoder.state < 1 << 32 and decoder.at >= len(decoder.stream) else -1
            for sound, decoder in zip(self._sound, self._decoders, strict=True)
        ]
