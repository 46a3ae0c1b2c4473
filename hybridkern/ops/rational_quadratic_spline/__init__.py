"""The operator ``rational_quadratic_spline``: one folder holds all of it."""
