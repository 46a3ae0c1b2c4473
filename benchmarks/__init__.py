"""Benchmarks: ``make bench`` measures, writes ``results/``, the README's table and its picture."""
