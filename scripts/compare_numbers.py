"""Prove that a refactor left every number alone: record what a revision computes, and
compare two records.

    PYTHONPATH=OLD/src python scripts/compare_numbers.py record before
    PYTHONPATH=NEW/src python scripts/compare_numbers.py record after
    python scripts/compare_numbers.py compare before after

`record` asks whatever `unitscope` is importable, through its public names and its
command line only, so that one script serves old and new revisions. Photos and weights
are those in $UNITSCOPE_DATA; what is missing there is made of seeded noise.

`compare` wants arrays, tables, pictures without text, and the numbers and keys of JSON
documents to be the same, byte for byte. Sentences, pages and pictures with text may be
worded anew: their differences are listed apart, and do not count. The exit status is 1
where anything else differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser(
        "record", help="write what this revision computes"
    )
    recording.add_argument(
        "folder", type=Path, help="a folder that is new or empty"
    )
    recording.add_argument(
        "--only",
        nargs="+",
        metavar="STEP",
        help="record these steps only: explanations, commands, atlas",
    )
    comparing = verbs.add_parser("compare", help="compare two records")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument(
        "--most", type=int, default=8, help="differences shown of each file"
    )
    arguments = parser.parse_args()

    if arguments.verb == "record":
        from comparison.recording import record

        record(arguments.folder, arguments.only)
        return 0

    from comparison.comparing import Comparison

    comparison = Comparison.of(arguments.before, arguments.after)
    print(comparison.text(arguments.most))
    return 0 if comparison.same else 1


if __name__ == "__main__":
    sys.exit(main())
