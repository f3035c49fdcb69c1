"""Summaries: what a scan stores about a layer, one monoid a file."""
