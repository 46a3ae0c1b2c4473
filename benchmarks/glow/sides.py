"""The sides by name: ``LIBRARY[-bf16][-MEMORY]``."""

from __future__ import annotations

import warnings

from benchmarks.glow.eager import eager
from benchmarks.glow.ours import MEMORY, ours
from benchmarks.glow.peers import freia, normflows
from benchmarks.glow.side import Architecture, Side

PEERS = {"normflows": normflows, "freia": freia}
_BUILDERS = {**PEERS, "eager": eager, "ours": ours}
NAMES = [
    *(f"{library}{precision}" for library in _BUILDERS for precision in ("", "-bf16")),
    *(f"ours{precision}-{memory}" for precision in ("", "-bf16") for memory in MEMORY[1:]),
]


def build(name: str, architecture: Architecture) -> Side:
    """The side of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"side: got {name!r}, expected one of {', '.join(NAMES)}")
    library, *rest = name.split("-")
    bf16 = "bf16" in rest
    memory = [mode for mode in MEMORY if mode in rest]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries call that torch deprecates
        return _BUILDERS[library](architecture, bf16, *memory)


def is_peer(name: str) -> bool:
    """Whether a side is another library's."""
    return name.split("-")[0] in PEERS


def missing(name: str) -> str | None:
    """Why a side cannot be built here, or ``None``."""
    library = name.split("-")[0]
    try:
        if library == "ours":
            from hybridkern.flows import Glow as _
        elif library == "freia":
            import FrEIA as _
        elif library == "normflows":
            import normflows as _  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
