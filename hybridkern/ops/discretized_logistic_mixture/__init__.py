"""The operator ``discretized_logistic_mixture``: one folder holds all of it."""
