"""Shards: the work on one part of a data set, in this process or in others."""
