"""The operator ``paired_conv1x1``: one folder holds all of it."""
