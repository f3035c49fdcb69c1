"""Findings: the tables of an atlas, one group of tables a file."""
