"""The command line: every verb parses, calls one library function, and prints."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from unitscope.cli.atlas import atlas_group, scan
from unitscope.cli.explore import explore
from unitscope.cli.photos import (
    ablate,
    explain,
    filters_command,
    info,
    reproduce,
    units_command,
)
from unitscope.cli.shared import CONTEXT, complain
from unitscope.errors import OutputError, UnitscopeError, UnitscopeWarning

__all__ = ["cli", "main"]


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="unitscope", prog_name="unitscope")
def cli() -> None:
    """Ask an image classifier what it has learned, and why it said that.

    \b
    unitscope explain photo.jpg                         # the bundled scene network, offline
    unitscope explain *.jpg --model torchvision:resnet50 --weights DEFAULT
    unitscope explore                                   # the same in the browser, on your photos
    unitscope info --model torchvision:resnet18
    """


for _verb in (
    explain,
    filters_command,
    units_command,
    ablate,
    info,
    reproduce,
    scan,
    atlas_group,
    explore,
):
    cli.add_command(_verb)


def _show_warning(
    message: Warning | str, category: type[Warning], *_where: Any, **_more: Any
) -> None:
    """Say a warning of ours on one line, without the place in the code; those of other libraries stay unsaid."""
    if issubclass(category, UnitscopeWarning):
        complain(UnitscopeWarning(f"warning: {message}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 done, 1 failed with one clear line, 2 wrong usage, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # A terminal that lacks → or × gets ? instead of a traceback.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UnitscopeWarning)
            warnings.showwarning = _show_warning
            result = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="unitscope",
                standalone_mode=False,
            )
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except (KeyboardInterrupt, click.Abort):
        complain(KeyboardInterrupt("interrupted"))
        return 130
    except UnitscopeError as error:
        complain(error)
        return 1
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): nothing to say, and Python must not
        # say it at exit either.
        sys.stdout = None
        return 1
    except OSError as error:
        # Everything that unitscope writes itself is told of by OutputError: this is
        # standard output.
        complain(
            OutputError(
                f"standard output cannot be written ({error.strerror or error}): free "
                "some space"
            )
        )
        sys.stdout = None
        return 1
