"""Two revisions of this repository beside each other: ``python -m benchmarks.compare --base REV``."""
