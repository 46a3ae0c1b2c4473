"""Everything that can only be measured on a GPU, in one command: ``python -m benchmarks.gpu`` (``make bench-gpu``).

The command is divided into phases, a phase into items, an item may compare several sides. Each phase runs in processes
of its own (:mod:`benchmarks.gpu.supervisor`), so that a kernel that kills its process, or hangs, costs one side of one
item; what is measured is appended to a table at once (:mod:`benchmarks.gpu.rows`).
"""
