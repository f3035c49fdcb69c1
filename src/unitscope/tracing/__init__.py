"""Tracing: the calls and layers of a forward pass, and where their cells lie."""
