"""`python -m unitscope`: the command line."""

import sys


def main() -> int:
    """Run the command line and return the exit status.

    An interrupt is answered in the same way while the command line is still imported.
    """
    try:
        from unitscope.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("unitscope: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
