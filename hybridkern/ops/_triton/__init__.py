"""Triton kernels and their launchers, for CUDA and ROCm. Importing this package loads triton: only its users may."""
