"""Atlas: what the units of a network do over a whole data set, and reading it."""
