"""Recipes on vectors of real numbers: regression and semi-supervised classification."""
