"""Summaries: what is kept of every unit over a data set; each is a monoid, so that parts can be put together."""
