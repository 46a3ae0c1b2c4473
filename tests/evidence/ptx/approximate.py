"""The functions that GPUs compute approximately, with errors as large as the PTX ISA allows.

Results are exact ones, off by a part of the documented maximum that varies wildly with the argument and with a seed,
but is the same for the same argument: so do threads that compute a number twice get it twice.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

# PTX ISA 9.x, "Floating Point Instructions": maximum relative error, maximum absolute error
_RELATIVE = {
    "ex2": 2.0**-22.5,
    "rcp": 2.0**-23,
    "sqrt": 2.0**-23,
    "rsqrt": 2.0**-22.9,
    "div": 2.0**-22,
    "tanh": 2.0**-10.987,
    "lg2": 0.0,
    "sin": 0.0,
    "cos": 0.0,
}
_ABSOLUTE = {"sin": 2.0**-20.9, "cos": 2.0**-20.9}
_LG2_NEAR_ONE = 2.0**-22  # absolute, for arguments in [0.5, 2]; relative elsewhere

_EXACT = {
    "ex2": np.exp2,
    "rcp": lambda x: 1.0 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "div": lambda x, y: x / y,
    "tanh": np.tanh,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
}


class Approximations:
    """Computes them; ``seed=None`` gives the exact results rounded."""

    def __init__(self, seed: int | None = 0) -> None:
        self._seed = seed

    def __call__(self, name: str, *arguments: Array) -> Array:
        """float32 result of ``name`` for float32 arguments."""
        wide = [argument.astype(np.float64) for argument in arguments]
        exact = _EXACT[name](*wide)
        if self._seed is None:
            return exact.astype(np.float32)
        relative, absolute = _RELATIVE[name], _ABSOLUTE.get(name, 0.0)
        error = np.abs(exact) * relative + absolute
        if name == "lg2":
            near = (wide[0] >= 0.5) & (wide[0] <= 2.0)
            error = np.where(near, _LG2_NEAR_ONE, np.abs(exact) * 2.0**-22)
        # exact at the points that the documentation names: 2**0, log2(1), and where the result is 0 or not finite
        special = (exact == 0.0) | ~np.isfinite(exact) | ((name == "ex2") & (wide[0] == 0.0))
        factor = _scattered(self._seed, *arguments)
        return np.where(special, exact, exact + factor * error).astype(np.float32)


def _scattered(seed: int, *arguments: Array) -> Array:
    """Numbers in [-1, 1], a hash of the arguments' bits."""
    state = np.full(arguments[0].shape, 0x9E3779B97F4A7C15 * (2 * seed + 1) & (2**64 - 1), np.uint64)
    for argument in arguments:
        state ^= np.ascontiguousarray(argument, np.float32).view(np.uint32).astype(np.uint64)
        for multiplier, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(multiplier)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
