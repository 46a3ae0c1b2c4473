"""The operator ``adamax``: one folder holds all of it."""
