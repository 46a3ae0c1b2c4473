"""The operator ``rounding_coupling``: one folder holds all of it."""
