"""Benchmarks: ``make bench`` measures, and writes ``results/``, the tables of README.md and their pictures."""
