"""Whether a flow has been initialized from data: read off its buffer, which is the only place that says so.

Copies of a model, averages of weights, replicas, and values copied by hand all carry the buffer, and nothing else.
Reading it on a CPU costs less than a microsecond. On another device reading waits for all work in flight; so there a
buffer is read once, and once seen True it is not waited for again: where it was written to since then, its value is
asked for without waiting and looked at when it has come.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from hybridkern._finite import is_plain
from hybridkern.flows._later import Later, capturing


class _Seen(NamedTuple):
    version: int
    asked: Later | None


# buffers on a device that were seen True: knowledge of that very tensor, gone with it
_seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def is_initialized(flag: Tensor) -> bool:
    """Whether the buffer ``flag`` ``()`` says so; True where it holds no value to read (meta and fake tensors)."""
    if not is_plain(flag) or capturing(flag.device):
        return True
    if flag.is_cpu or flag.is_inference():
        return bool(flag)
    seen = _seen.get(flag)
    if seen is None:
        if known := bool(flag):
            _seen[flag] = _Seen(flag._version, None)
        return known
    asked = Later(flag) if seen.asked is None and seen.version != flag._version else seen.asked
    answer = None if asked is None else asked.answer()
    if answer is False:
        del _seen[flag]
        return False
    _seen[flag] = _Seen(flag._version if asked is not seen.asked else seen.version, None if answer else asked)
    return True


def mark_initialized(flag: Tensor) -> None:
    """Writes True into the buffer, in place, so that whoever shares it sees it."""
    flag.fill_(True)
    if is_plain(flag) and not flag.is_cpu and not flag.is_inference():
        _seen[flag] = _Seen(flag._version, None)


def known_to_compiler(flag: Tensor) -> bool:
    """:func:`is_initialized` while a graph is made: read then, a constant of the graph.

    A flow that is not initialized must look at each call, since a constant "no" would start it again with every batch:
    what :func:`starts_outside_of_graphs` named is from then on run outside of graphs.
    """
    while _starts:
        kind, method = _starts.pop()
        reason = f"{kind.__name__}: not initialized yet; call initialize(x) before compiling"
        setattr(kind, method, torch.compiler.disable(getattr(kind, method), reason=reason))
    return is_initialized(flag)


# what torch.compiler.assume_constant_result does, without its import of the compiler and of all that this imports
known_to_compiler._dynamo_marked_constant = True  # type: ignore[attr-defined]

_starts: list[tuple[type, str]] = []


def starts_outside_of_graphs(kind: type, method: str) -> None:
    """Names the method of a class that starts it from its first batch."""
    _starts.append((kind, method))
