"""Attribution: the algebra of heads, maps, contributions and ablations."""
