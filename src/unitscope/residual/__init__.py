"""The residual stream of a transformer: an exact account of heads, tokens and MLPs."""
