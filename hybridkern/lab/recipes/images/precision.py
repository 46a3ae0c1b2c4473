"""In which precision the networks of a training step run, and how its memory is kept."""

from __future__ import annotations

import ctypes
from typing import Literal

import torch

from hybridkern.lab.recipes.device import CPU, multiplies_bf16

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGE = 2**30


def has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself (AMX or AVX512-BF16)."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(check is not None and check() for check in checks)


def resolve(precision: str, device: torch.device = CPU) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name of a setting ``auto``, ``fp32`` or ``bf16`` on a device."""
    if precision == "auto":
        multiplies = multiplies_bf16() if device.type == "cuda" else has_bf16_instructions()
        precision = "bf16" if multiplies else "fp32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def keep_freed_memory() -> bool:
    """Has ``malloc`` keep large blocks for the next step; otherwise each is mapped and faulted in anew.

    For the process, from now on. Returns whether the C library (glibc) took it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28))
    return all(mallopt(name, value) == 1 for name, value in settings)
