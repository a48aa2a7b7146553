"""Benchmarks: one file per question. ``python -m bench`` answers the main ones in one run and prints how sure it is."""
