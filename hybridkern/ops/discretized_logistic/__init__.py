"""The operator ``discretized_logistic``: one folder holds all of it."""
