"""Experiments by name, trained with Lightning into a run folder; see :mod:`hybridkern.lab.recipes.workflow`."""
