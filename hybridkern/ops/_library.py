"""The operator library ``hybridkern``: schemas are defined once, here; kernels attach to them from C++ or Triton."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("hybridkern", "DEF")


def define(schema: str, fake: Callable[..., Any]) -> Any:
    """Define ``hybridkern::<schema>`` with its fake (shape-only) kernel; returns the ``.default`` overload."""
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"hybridkern::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.hybridkern, name).default
