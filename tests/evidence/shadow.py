"""A record, byte by byte, of who read and wrote the tensors that a kernel was given.

An *actor* is whatever runs in no order with others of its kind: a program of Triton, a block of CUDA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Array = np.ndarray
NOBODY, SEVERAL = -1, -2
LOAD, STORE, ATOMIC = "load", "store", "atomic"


@dataclass(frozen=True)
class Finding:
    """One fault: ``out of bounds``, ``race``, ``uninitialized``."""

    kind: str
    where: str
    detail: str = ""


@dataclass(frozen=True)
class Usage:
    """How often the bytes of one argument were touched: fewest and most reads and writes of a byte, and totals."""

    size: int
    reads: tuple[int, int]
    writes: tuple[int, int]
    bytes_read: int
    bytes_written: int


def element_bytes(tensor: Tensor) -> Array:
    """Offsets, from the start of the storage, of the bytes that belong to the elements of a view; each once."""
    index = np.full((), tensor.storage_offset(), np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        index = index[..., None] + np.arange(size, dtype=np.int64) * stride
    width = tensor.element_size()
    own = np.zeros(tensor.untyped_storage().nbytes() // width, bool)
    own[index.ravel()] = True
    return (np.flatnonzero(own)[:, None] * width + np.arange(width)).ravel()


class _Region:
    """One storage: which of its bytes belong to arguments, and the record of each byte."""

    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.start, self.size = storage.data_ptr(), storage.nbytes()
        self.allowed = np.zeros(self.size, bool)
        self.reads = np.zeros(self.size, np.int64)
        self.writes = np.zeros(self.size, np.int64)
        self.actor = {kind: np.full(self.size, NOBODY, np.int64) for kind in (LOAD, STORE, ATOMIC)}
        self.epoch = np.full(self.size, -1, np.int64)  # of the last store, between barriers of one actor
        self.unwritten = np.zeros(self.size, bool)


class Shadow:
    """The record of one launch.

    Args:
        tensors: the arguments by name. Only bytes of their elements may be touched: a view gives its own, not those
            of the storage around it.
        unwritten: for the start address of a storage, which of its bytes nobody has written yet; kept up to date, so
            that it serves for several launches.
        own_stores: whether an actor that loads what it stored since its last barrier is a race. It is one among the
            threads of a program of Triton.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], unwritten: Mapping[int, Array] | None = None, own_stores: bool = True
    ) -> None:
        self.findings: list[Finding] = []
        self.atomics = 0
        self._regions: dict[int, _Region] = {}
        self._views: dict[str, tuple[_Region, Array]] = {}
        self._epoch = 0
        self._own_stores = own_stores
        for name, tensor in tensors.items():
            if tensor.numel() == 0:
                continue
            start = tensor.untyped_storage().data_ptr()
            region = self._regions.setdefault(start, _Region(tensor))
            if unwritten is not None and start in unwritten:
                region.unwritten = unwritten[start]
            view = element_bytes(tensor)
            region.allowed[view] = True
            self._views[name] = region, view

    def barrier(self) -> None:
        """From here on, the running actor may load what it stored before."""
        self._epoch += 1

    def record(self, kind: str, addresses: Array, width: int, actors: Array | int) -> Array:
        """Notes accesses of ``width`` bytes; returns which of them lie within arguments and may be carried out."""
        addresses = np.asarray(addresses, np.int64).ravel()
        actors = np.broadcast_to(np.asarray(actors, np.int64), addresses.shape)
        valid = np.zeros(addresses.shape, bool)
        for region in self._regions.values():
            inside = (addresses >= region.start) & (addresses + width <= region.start + region.size)
            offsets = (addresses[inside] - region.start)[:, None] + np.arange(width)
            own = region.allowed[offsets].all(axis=1) if offsets.size else np.zeros(0, bool)
            valid[np.nonzero(inside)[0][own]] = True
            self._note(region, kind, offsets[own], actors[inside][own])
        if not valid.all():
            first = int(np.nonzero(~valid)[0][0])
            self._find("out of bounds", kind, f"{int((~valid).sum())} accesses, first by {int(actors[first])}")
        self.atomics += int(kind == ATOMIC) * addresses.size
        return valid

    def _note(self, region: _Region, kind: str, offsets: Array, actors: Array) -> None:
        if not offsets.size:
            return
        flat = offsets.ravel()
        who = np.repeat(actors, offsets.shape[1])
        low = int(flat.min())
        counts = np.bincount(flat - low)
        touched = slice(low, low + counts.size)
        if kind != STORE:
            region.reads[touched] += counts
        if kind != LOAD:
            region.writes[touched] += counts
        if kind == LOAD:
            if region.unwritten[flat].any():
                self._find("uninitialized", self._name(region, int(flat[region.unwritten[flat]][0])), "read first")
            again = (region.actor[STORE][flat] == who) & (region.epoch[flat] == self._epoch)
            if self._own_stores and again.any():
                name = self._name(region, int(flat[again][0]))
                self._find("race", name, "loaded after a store of the same program, without a barrier")
        else:
            region.unwritten[flat] = False
        if kind == STORE:
            region.epoch[flat] = self._epoch
            if (counts > 1).any():
                self._find("race", self._name(region, int(flat[0])), "stored twice by one instruction")
        _mark(region.actor[kind], flat, who)

    def _name(self, region: _Region, offset: int) -> str:
        for name, (own, view) in self._views.items():
            if own is region and offset in view:
                return name
        return "?"

    def _find(self, kind: str, where: str, detail: str) -> None:
        finding = Finding(kind, where, detail)
        if finding not in self.findings and len(self.findings) < 50:
            self.findings.append(finding)

    def finish(self) -> None:
        """Looks for races between actors; to be called once, after the launch."""
        for region in self._regions.values():
            load, store, atomic = (region.actor[kind] for kind in (LOAD, STORE, ATOMIC))
            bad = (store == SEVERAL) | _differ(store, load) | _differ(store, atomic) | _differ(atomic, load)
            bad |= (atomic == SEVERAL) & ((load != NOBODY) | (store != NOBODY))
            if bad.any():
                at = np.nonzero(bad)[0]
                self._find("race", self._name(region, int(at[0])), f"{at.size} bytes shared by programs, some write")

    def touched_bytes(self) -> int:
        """Bytes that were read, and bytes that were written, each once: the least traffic for what was done."""
        return sum(int((r.reads > 0).sum() + (r.writes > 0).sum()) for r in self._regions.values())

    def usage(self) -> dict[str, Usage]:
        """What became of each argument that has elements."""
        return {name: _usage(region, view) for name, (region, view) in self._views.items()}


def _mark(column: Array, flat: Array, who: Array) -> None:
    """Enters actors into a column, several of them for one byte as ``SEVERAL``."""
    before = column[flat]
    column[flat] = np.where((before == NOBODY) | (before == who), who, SEVERAL)
    # of several actors within this call, the last one stands in the column now
    clash = column[flat] != who
    column[flat[clash]] = SEVERAL


def _differ(first: Array, second: Array) -> Array:
    """Both touched the byte, and not one and the same actor did."""
    return (first != NOBODY) & (second != NOBODY) & ((first != second) | (first == SEVERAL))


def _usage(region: _Region, view: Array) -> Usage:
    reads, writes = region.reads[view], region.writes[view]
    return Usage(
        size=view.size,
        reads=(int(reads.min()), int(reads.max())),
        writes=(int(writes.min()), int(writes.max())),
        bytes_read=int(reads.sum()),
        bytes_written=int(writes.sum()),
    )


def tensors_of(arguments: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors among the arguments of a kernel."""
    return {name: value for name, value in arguments.items() if isinstance(value, Tensor)}


def of_kind(findings: Iterable[Finding], kind: str) -> list[Finding]:
    """The findings of one kind."""
    return [finding for finding in findings if finding.kind == kind]
