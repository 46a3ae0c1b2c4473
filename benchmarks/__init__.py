"""Benchmarks: ``make bench`` measures, and writes ``results/``, the tables of docs/benchmarks.md and their pictures."""
