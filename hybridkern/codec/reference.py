"""The coder in Python integers: what csrc/codec computes, byte for byte, and what runs where that was not built.

Masses. A symbol is distributed as a mixture of K discretized logistics with means ``m / 64``, log-scales
``j / 16 - 6`` and logits ``l / 16``, all integers. The cumulative function is an integer too, read from the tables of
:mod:`hybridkern.codec.tables` with straight lines between entries. Bin ``b`` of a window of 4096 values starts at
``C(b) = floor(F(b) (2**24 - 4097)) + b``, so every bin has a mass of at least 1. What is left above ``C(4096)`` is
the escape, after which the distance from the window follows in an Elias code.

Streams. rANS with a state below ``2**63`` and words of 32 bits. The state starts at a seed below ``2**32``: the bits
that a coder needs at the start carry the checksum of the image, and a decoder must end there, with no words left. A
stream of n bytes is the first ``n mod 4`` bytes of the last state and then its words from the last to the first,
little-endian.

Source: Duda 2013 (arXiv:1311.2540), the range variant; the integer cumulative function as in Hoogeboom et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hybridkern.codec import tables as t

MASS = 1 << t.MASS_BITS
LOWER = 1 << 31  # of the state, once words were written
_STEPS_BITS = t.MEAN_STEPS.bit_length() - 1
_ARGUMENT_SHIFT = t.INVERSE_BITS + _STEPS_BITS - t.ARGUMENT_BITS
_FRACTION_BITS = t.ARGUMENT_BITS - t.TABLE_BITS
_LENGTH_BITS = 6  # of the number of bits of an escaped distance
_CHUNK = 16  # bits coded at once


class Parameters(NamedTuple):
    """Distributions of ``D`` symbols, int32 ``(n, K, D)`` each, ``n`` the number of streams or 1.

    ``logits`` in 1/16, any offset; ``means`` in 1/64; ``scales`` the index of a log-scale, 0 to 255.
    """

    logits: np.ndarray
    means: np.ndarray
    scales: np.ndarray


class Symbol:
    """The masses of one symbol."""

    def __init__(self, logits: np.ndarray, means: np.ndarray, scales: np.ndarray) -> None:
        found = t.tables()
        self.tail: list[int] = found.tail.tolist()
        most = int(logits.max())
        masses = [int(found.weight[min(most - int(logit), 255)]) for logit in logits]
        total = sum(masses)
        share = (1 << t.SHARE_BITS) // total
        self.weights = [mass * share >> (t.SHARE_BITS - t.WEIGHT_BITS) for mass in masses]
        self.weights[masses.index(max(masses))] += (1 << t.WEIGHT_BITS) - sum(self.weights)
        self.means = [int(mean) for mean in means]
        self.inverse = [int(found.inverse[int(scale)]) for scale in scales]
        middle = sum(w * m for w, m in zip(self.weights, self.means, strict=True)) >> t.WEIGHT_BITS
        self.first = ((middle + t.MEAN_STEPS // 2) >> _STEPS_BITS) - t.WINDOW // 2

    def _below(self, distance: int, inverse: int) -> int:
        argument = (min(abs(distance), t.FARTHEST) * inverse) >> _ARGUMENT_SHIFT
        i, fraction = argument >> _FRACTION_BITS, argument & ((1 << _FRACTION_BITS) - 1)
        if i >= t.LIMIT << t.TABLE_BITS:
            tail = 0
        else:
            tail = self.tail[i] - (((self.tail[i] - self.tail[i + 1]) * fraction) >> _FRACTION_BITS)
        return tail if distance < 0 else t.ONE - tail

    def start(self, b: int) -> int:
        """``C(b)``."""
        edge = t.MEAN_STEPS * (self.first + b) - t.MEAN_STEPS // 2
        parts = zip(self.weights, self.means, self.inverse, strict=True)
        below = sum(w * self._below(edge - mean, inverse) for w, mean, inverse in parts) >> t.WEIGHT_BITS
        return ((below * (MASS - t.WINDOW - 1)) >> t.ONE_BITS) + b

    def find(self, place: int) -> int:
        """The bin that holds ``place``; the window's size for the escape, -1 for none."""
        low, high = -1, t.WINDOW + 1  # C(low) <= place < C(high), the ends standing for the ends of the range
        while high - low > 1:
            b = (low + high) // 2
            low, high = (b, high) if self.start(b) <= place else (low, b)
        return low


class Encoder:
    """One stream; symbols are pushed from the last to the first. ``seed`` is below ``2**32``."""

    def __init__(self, seed: int) -> None:
        self.state = seed
        self.words: list[int] = []

    def push(self, start: int, mass: int) -> None:
        """A symbol with the places ``start`` to ``start + mass``."""
        if self.state >= mass << (63 - t.MASS_BITS):
            self.words.append(self.state & 0xFFFFFFFF)
            self.state >>= 32
        self.state = (self.state // mass << t.MASS_BITS) + self.state % mass + start

    def push_bits(self, value: int, bits: int) -> None:
        """``bits`` bits as they are, at most 24."""
        self.push(value << (t.MASS_BITS - bits), 1 << (t.MASS_BITS - bits))

    def push_symbol(self, value: int, symbol: Symbol) -> None:
        """A value under its distribution."""
        b = value - symbol.first
        if 0 <= b < t.WINDOW:
            start = symbol.start(b)
            self.push(start, symbol.start(b + 1) - start)
            return
        code = (2 * (b - t.WINDOW) if b >= 0 else 2 * (-1 - b) + 1) + 1
        bits = code.bit_length() - 1  # below the leading one
        for low in range(0, bits, _CHUNK):
            self.push_bits((code >> low) & ((1 << min(_CHUNK, bits - low)) - 1), min(_CHUNK, bits - low))
        self.push_bits(bits, _LENGTH_BITS)
        start = symbol.start(t.WINDOW)
        self.push(start, MASS - start)

    def bytes(self) -> bytes:
        """The stream."""
        size = (self.state.bit_length() + 7) // 8
        words = self.words.copy()
        while size >= 4:
            words.append(self.state & 0xFFFFFFFF)
            self.state >>= 32
            size -= 4
        head = self.state.to_bytes(size, "little")
        return head + b"".join(word.to_bytes(4, "little") for word in reversed(words))


class DamagedStreamError(ValueError):
    """A stream that no encoder wrote."""


class Decoder:
    """One stream; symbols are popped from the first to the last."""

    def __init__(self, stream: bytes) -> None:
        head = len(stream) % 4
        self.stream, self.at = stream, head
        self.state = int.from_bytes(stream[:head], "little")
        self._refill()

    def _refill(self) -> None:
        while self.state < LOWER and self.at < len(self.stream):
            word = int.from_bytes(self.stream[self.at : self.at + 4], "little")
            self.state = self.state << 32 | word
            self.at += 4

    def _advance(self, place: int, start: int, mass: int) -> None:
        self.state = mass * (self.state >> t.MASS_BITS) + place - start
        self._refill()

    def pop_bits(self, bits: int) -> int:
        """``bits`` bits."""
        place = self.state & (MASS - 1)
        value = place >> (t.MASS_BITS - bits)
        self._advance(place, value << (t.MASS_BITS - bits), 1 << (t.MASS_BITS - bits))
        return value

    def pop_symbol(self, symbol: Symbol) -> int:
        """The next value, under its distribution.

        Raises:
            DamagedStreamError: there is none.
        """
        place = self.state & (MASS - 1)
        b = symbol.find(place)
        if b < 0:
            raise DamagedStreamError("a place below the first bin")
        start = symbol.start(b)
        if b < t.WINDOW:
            self._advance(place, start, symbol.start(b + 1) - start)
            return symbol.first + b
        self._advance(place, start, MASS - start)
        bits = self.pop_bits(_LENGTH_BITS)
        if bits > 32:
            raise DamagedStreamError("an escape beyond all integers")
        code = 1
        for low in reversed(range(0, bits, _CHUNK)):
            size = min(_CHUNK, bits - low)
            code = code << size | self.pop_bits(size)
        distance, below = divmod(code - 1, 2)
        value = symbol.first + (-1 - distance if below else t.WINDOW + distance)
        if not -(1 << 31) <= value < 1 << 31:
            raise DamagedStreamError("an escape beyond all integers")
        return value


def _symbol(parameters: Parameters, row: int, d: int) -> Symbol:
    return Symbol(*(table[row if len(table) > 1 else 0, :, d] for table in parameters))


def encode(values: np.ndarray, seeds: np.ndarray, parameters: Parameters) -> list[bytes]:
    """A stream for each row of ``values``, int32 ``(N, D)``, and of ``seeds``, ``(N,)`` from 0 to ``2**32 - 1``."""
    streams = []
    for row, symbols in enumerate(values):
        encoder = Encoder(int(seeds[row]))
        for d in reversed(range(len(symbols))):
            encoder.push_symbol(int(symbols[d]), _symbol(parameters, row, d))
        streams.append(encoder.bytes())
    return streams


def decode(decoders: list[Decoder], parameters: Parameters, size: int) -> np.ndarray:
    """The next ``size`` values of each stream, int32 ``(N, size)``.

    Raises:
        DamagedStreamError: a stream has none.
    """
    values = np.empty((len(decoders), size), np.int32)
    for row, decoder in enumerate(decoders):
        for d in range(size):
            values[row, d] = decoder.pop_symbol(_symbol(parameters, row, d))
    return values
