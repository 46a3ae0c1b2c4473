"""The operator ``lipswish``: one folder holds all of it."""
