"""Evaluation: is an explanation any good? Measured, with intervals and nulls."""
