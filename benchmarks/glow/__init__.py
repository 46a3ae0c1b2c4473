"""Whole training steps of Glow, in several libraries: ``python -m benchmarks.glow_step``."""
