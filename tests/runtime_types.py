"""The checker that proves the package's annotations while tests run: an int may be a
float, as PEP 484 says."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
