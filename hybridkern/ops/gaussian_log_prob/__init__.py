"""The operator ``gaussian_log_prob``: one folder holds all of it."""
