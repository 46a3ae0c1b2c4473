"""Peak memory of one training step: resident memory of a fresh process, by the kernel's own account."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # proc(5): resets the peak of the resident set size


def peak_of(run: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process grows at most while ``run`` runs.

    Memory that was freed earlier and could be used again without growing is given back to the system first.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_FORGET_PEAK)
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def in_fresh_process(function: Callable[..., int], *arguments: object) -> int:
    """``function(*arguments)``, run by a new interpreter that has done nothing before.

    Args:
        function: a function of a module, which is imported there.
        arguments: can be pickled.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _resident(entry: str) -> int:
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"{_STATUS} has no line {entry}"
    return 1024 * int(found.group(1))
