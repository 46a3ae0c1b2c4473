"""Environment variables, read once at import.

``HYBRIDKERN_BACKEND``
    Default backend of every operator: ``auto`` (the default), ``reference``, ``cpp``, ``triton`` or ``cuda``.
``HYBRIDKERN_TRITON_WARPS``
    Warps a program of the Triton kernels, in place of the table's choice (``hybridkern/triton/_tiles.py``); 1 to 16.
``HYBRIDKERN_NO_EXT``
    ``1``: neither build nor load the compiled extension.
"""

from __future__ import annotations

import os

BACKEND: str = os.environ.get("HYBRIDKERN_BACKEND", "auto").strip().lower() or "auto"
NO_EXTENSION: bool = os.environ.get("HYBRIDKERN_NO_EXT", "").strip() not in ("", "0")
TRITON_WARPS: int = int(os.environ.get("HYBRIDKERN_TRITON_WARPS", "0"))
