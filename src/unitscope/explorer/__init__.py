"""The explorer: a classifier and what its units do over a data set, to be looked through in a browser."""
