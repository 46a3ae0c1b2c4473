"""Experiments of the literature by name: each gives a table beside the published figures, a picture and a JSON file.

See :mod:`hybridkern.lab.reproduce.experiment` for what an experiment is and
:mod:`hybridkern.lab.reproduce.workflow` for a run.
"""
