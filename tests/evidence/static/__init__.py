"""What assembled code says without being run: registers, spills, shared memory, widths of accesses, occupancy."""
