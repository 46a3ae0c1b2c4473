"""Global and shared memory of the executor: the checks and the counting of accesses."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tests.evidence.shadow import LOAD, NOBODY, SEVERAL, STORE, Finding, Shadow

Array = np.ndarray
SECTOR = 32  # bytes: what DRAM and L2 move at least
_SECTOR_BITS = 43  # of the number of a sector: user space ends at 2**47 bytes


@dataclass
class Sectors:
    """32-byte sectors that warps asked for: an instruction of a warp counts each of its sectors once."""

    loaded: int = 0
    stored: int = 0

    @property
    def bytes(self) -> int:
        """Traffic of both directions."""
        return SECTOR * (self.loaded + self.stored)


class GlobalMemory:
    """The tensors that a launch was given, by address. ``moved``: bytes of sectors by name, where spans are apart."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.shadow = Shadow(tensors, own_stores=False)
        self.sectors = Sectors()
        self.moved = dict.fromkeys(tensors, 0)
        self._spans = {name: _span(tensor) for name, tensor in tensors.items()}
        self._buffers: dict[int, Array] = {}
        for tensor in tensors.values():
            storage = tensor.untyped_storage()
            raw = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
            self._buffers[storage.data_ptr()] = np.frombuffer(raw, np.uint8)
        self._keep = list(tensors.values())

    def access(self, kind: str, addresses: Array, width: int, warps: Array, blocks: Array) -> Array:
        """Checks and counts; returns which accesses may be carried out."""
        asked = np.sort(warps << _SECTOR_BITS | addresses // SECTOR)
        sectors = asked[np.diff(asked, prepend=-1) != 0] & ((1 << _SECTOR_BITS) - 1)
        count = sectors.size
        for name, (start, end) in self._spans.items():
            self.moved[name] += SECTOR * int(((sectors >= start) & (sectors <= end)).sum())
        if kind == LOAD:
            self.sectors.loaded += count
        else:
            self.sectors.stored += count
        return self.shadow.record(kind, addresses, width, blocks)

    def load(self, addresses: Array, width: int) -> Array:
        """Bytes ``(n, width)`` at valid addresses."""
        out = np.zeros((addresses.size, width), np.uint8)
        for start, buffer in self._buffers.items():
            own = (addresses >= start) & (addresses < start + buffer.size)
            out[own] = buffer[(addresses[own] - start)[:, None] + np.arange(width)]
        return out

    def store(self, addresses: Array, data: Array) -> None:
        """Writes ``(n, width)`` bytes to valid addresses."""
        for start, buffer in self._buffers.items():
            own = (addresses >= start) & (addresses < start + buffer.size)
            buffer[(addresses[own] - start)[:, None] + np.arange(data.shape[1])] = data[own]


def _span(tensor: Tensor) -> tuple[int, int]:
    """First and last sector."""
    if tensor.numel() == 0:
        return 1, 0
    elements = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    start = tensor.data_ptr()
    return start // SECTOR, (start + elements * tensor.element_size() - 1) // SECTOR


class SharedMemory:
    """Shared memory of several blocks, one after another, with races looked for between warps.

    Within a warp, order is not checked: that needs ``bar.warp.sync``, which the emulation under TSan sees.
    """

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.findings: list[Finding] = []
        self._data = np.full(blocks * size, 0xFF, np.uint8)
        self._epochs = np.zeros(blocks, np.int64)
        self._warp = {kind: np.full(blocks * size, NOBODY, np.int64) for kind in (LOAD, STORE)}
        self._epoch = {kind: np.full(blocks * size, -1, np.int64) for kind in (LOAD, STORE)}

    def barrier(self, blocks: Array) -> None:
        """All threads of these blocks have met."""
        self._epochs[blocks] += 1

    def _check(self, kind: str, addresses: Array, width: int, warps: Array, blocks: Array, text: str) -> Array:
        outside = (addresses < 0) | (addresses + width > self.size)
        if outside.any():
            self._find("out of bounds", text)
        at = (np.where(outside, 0, addresses) + blocks * self.size)[:, None] + np.arange(width)
        warp, epoch = (
            np.broadcast_to(warps[:, None], at.shape),
            np.broadcast_to(self._epochs[blocks][:, None], at.shape),
        )
        rivals = (STORE,) if kind == LOAD else (STORE, LOAD)
        for rival in rivals:
            if ((self._epoch[rival][at] == epoch) & (self._warp[rival][at] != warp)).any():
                self._find("race", f"{text}: {rival}ed by another warp since the last barrier")
        if kind == LOAD and (self._warp[STORE][at] == NOBODY).any():
            self._find("uninitialized", text)
        same = (self._epoch[kind][at] == epoch) & (self._warp[kind][at] != warp)
        self._warp[kind][at] = np.where(same, SEVERAL, warp)
        clash = self._warp[kind][at] != warp
        self._warp[kind][at[clash]] = SEVERAL
        self._epoch[kind][at] = epoch
        return at

    def load(self, addresses: Array, width: int, warps: Array, blocks: Array, text: str) -> Array:
        """Bytes ``(n, width)``."""
        return self._data[self._check(LOAD, addresses, width, warps, blocks, text)]

    def store(self, addresses: Array, data: Array, warps: Array, blocks: Array, text: str) -> None:
        """Writes ``(n, width)`` bytes."""
        at = self._check(STORE, addresses, data.shape[1], warps, blocks, text)
        self._data[at] = data
        if (self._data[at] != data).any():  # one value stored by several warps is none
            self._find("race", f"{text}: different values stored to one address at once")

    def _find(self, kind: str, detail: str) -> None:
        finding = Finding(kind, "shared memory", detail)
        if finding not in self.findings:
            self.findings.append(finding)
