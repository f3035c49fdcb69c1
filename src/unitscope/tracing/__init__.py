"""Tracing: one forward pass, watched: its calls, its layers, and where the cells of their maps lie."""
