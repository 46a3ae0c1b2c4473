"""Environment variables, read once at import.

``HYBRIDKERN_BACKEND``
    Default backend of every operator: ``auto`` (the default), ``reference``, ``cpp``, ``triton`` or ``cuda``, or
    several of them in order of preference, with commas between.
``HYBRIDKERN_TRITON_WARPS``
    Warps a program of the Triton kernels, in place of the choice of ``hybridkern/ops/_triton/tiles.py``; 1 to 16.
``HYBRIDKERN_TRITON_PLANS``
    ``0``: every launch of a Triton kernel goes through Triton's own launcher, none by a plan of
    ``hybridkern/ops/_triton/plans.py``.
``HYBRIDKERN_NO_EXT``
    ``1``: neither build nor load the compiled extension.
``HYBRIDKERN_PRETEND_CUDA``
    ``1``, for tests: load and register the CUDA library on a machine without a device. Its kernels cannot run there.
"""

from __future__ import annotations

import os

PRETEND_CUDA: bool = os.environ.get("HYBRIDKERN_PRETEND_CUDA", "").strip() not in ("", "0")
BACKEND: str = os.environ.get("HYBRIDKERN_BACKEND", "auto").strip().lower() or "auto"
NO_EXTENSION: bool = os.environ.get("HYBRIDKERN_NO_EXT", "").strip() not in ("", "0")
TRITON_WARPS: int = int(os.environ.get("HYBRIDKERN_TRITON_WARPS", "0"))
TRITON_PLANS: bool = os.environ.get("HYBRIDKERN_TRITON_PLANS", "").strip() != "0"
