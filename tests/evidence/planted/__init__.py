"""Kernels with known faults, and their correct versions: what the tools must find, and must not."""
