"""What a worker is doing, line by line in a file: so that whoever finds it dead knows which item and side it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class State(NamedTuple):
    """What a journal says: items that are over, the one that is not and its side, and the sides that were lost."""

    over: frozenset[str]
    item: str
    side: str
    lost: dict[str, frozenset[str]]


class Journal:
    """The journal of one worker, and of those that take its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def begin(self, item: str) -> None:
        """An item begins."""
        self._write("begin", item, "")

    def side(self, item: str, side: str) -> None:
        """One of its sides begins; an empty name: none is running."""
        self._write("side", item, side)

    def end(self, item: str) -> None:
        """An item is over, however it went."""
        self._write("end", item, "")

    def lost(self, item: str, side: str) -> None:
        """The process ended in that side, or in no side: then the whole item is given up."""
        self._write("lost", item, side)

    def _write(self, *words: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\t".join(words) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> State:
        """What it says by now."""
        over: set[str] = set()
        lost: dict[str, frozenset[str]] = {}
        item = side = ""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            kind, name, which = line.split("\t")
            if kind == "begin":
                item, side = name, ""
            elif kind == "side":
                side = which
            elif kind == "end":
                over.add(name)
                item = side = ""
            else:
                if which:
                    lost[name] = lost.get(name, frozenset()) | {which}
                else:
                    over.add(name)
                item = side = ""
        return State(frozenset(over), item, side, lost)
