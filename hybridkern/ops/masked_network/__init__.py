"""Masked network of any number of layers as one operator."""
