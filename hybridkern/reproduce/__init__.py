"""Experiments of the literature by name: each gives a table beside the published figures, a picture and a JSON file.

See :mod:`hybridkern.reproduce.experiment` for what an experiment is, :mod:`hybridkern.reproduce.workflow` for a run.
"""
