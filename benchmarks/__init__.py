"""Measurements beside peers. Works in the repository only: ``python -m benchmarks.NAME``."""
