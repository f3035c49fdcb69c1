"""Comparing maps of a vision transformer: which patches carry its answer."""
