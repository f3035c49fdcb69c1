"""`python -m unitscope`: the command line."""

import sys

from unitscope.cli import main

sys.exit(main())
