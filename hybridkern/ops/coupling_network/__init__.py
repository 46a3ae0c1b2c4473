"""The operator ``coupling_network``: one folder holds all of it."""
