"""What can be shown about the GPU kernels on a machine without a GPU: ``make evidence`` runs this folder.

Three kinds of tools, each with tests of its own in which it must find planted faults:

- ``interpreter``: Triton's interpreter with every access to memory recorded;
- ``ptx``: the compiled code of Triton and of nvcc, executed in NumPy;
- ``static``: what the assembled code says about registers, spills, widths of accesses and occupancy.

The kernels they are applied to stand in ``subjects``; ``table`` writes the results to docs/gpu-evidence.md.
"""
