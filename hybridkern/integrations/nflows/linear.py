"""Linear layers of nflows that gain."""

from __future__ import annotations

from nflows.transforms import lu

from hybridkern.integrations import _lu


class LULinear(_lu.LULinear, lu.LULinear):
    """``L U x + b``."""
