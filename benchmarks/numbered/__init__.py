"""Numbered tasks, sent by a view: an app that `benchmarks/faults.py` adds to both services."""
