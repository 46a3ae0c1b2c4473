"""The operator ``rounding_coupling_mirrored``: one folder holds all of it."""
