"""Summaries: the facts that a scan keeps of a layer, one monoid a file."""
