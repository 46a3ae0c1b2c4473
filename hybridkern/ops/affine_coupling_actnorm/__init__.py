"""The operator ``affine_coupling_actnorm``: one folder holds all of it."""
