"""The operator ``affine_coupling``: one folder holds all of it."""
