"""The command line: every verb parses, calls one library function, and prints."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from unitscope.cli.ablate import ablate
from unitscope.cli.atlas import atlas_group
from unitscope.cli.evaluate import evaluate
from unitscope.cli.explain import explain
from unitscope.cli.explore import explore
from unitscope.cli.info import info
from unitscope.cli.options import CONTEXT
from unitscope.cli.output import StreamError, complain, restored_output
from unitscope.cli.pictures import filters_command, units_command
from unitscope.cli.reproduce import reproduce
from unitscope.cli.scan import scan
from unitscope.errors import (
    InternalError,
    UnitscopeError,
    UnitscopeWarning,
)

__all__ = ["cli", "main"]

# What goes wrong where click prints a help text, and never where a file is read.
_OF_STREAMS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
    evaluate,
    explore,
):
    cli.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 done, 1 failed with one clear line, 2 wrong usage, 130 interrupted.
    """
    _replace_unknown_characters()
    try:
        return _run(arguments)
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except (KeyboardInterrupt, click.Abort):
        complain(KeyboardInterrupt("interrupted"))
        return 130
    except StreamError as error:
        complain(error)
        # Python would write what is left at exit, and fail again.
        sys.stdout = None
        return 1
    except UnitscopeError as error:
        complain(error)
        return 1
    except BrokenPipeError:
        # The reader of a pipe has ended (`| head`), and that is not an error. Without
        # standard output Python does not report one at exit either.
        sys.stdout = None
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_STREAMS:
            complain(InternalError.of(error))
            return 1
        complain(StreamError.of(error))
        sys.stdout = None
        return 1
    except InternalError as error:
        complain(error)
        return 1
    except SystemExit:  # SIGTERM has ended a scan in order
        raise
    except BaseException as error:  # a bug, whatever it is
        complain(InternalError.of(error))
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("always", UnitscopeWarning)
        warnings.showwarning = _show_each_once()
        with restored_output():
            result = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="unitscope",
                standalone_mode=False,
            )
    return result if isinstance(result, int) else 0


def _replace_unknown_characters() -> None:
    """Print "?" for characters that a terminal lacks, such as → and ×."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _show_each_once() -> Callable[..., None]:
    """What prints each UnitscopeWarning as one line, and hides those of other libraries."""
    shown: set[str] = set()

    def show(
        message: Warning | str, category: type[Warning], *_: Any, **_more: Any
    ) -> None:
        text = str(message)
        if issubclass(category, UnitscopeWarning) and text not in shown:
            shown.add(text)
            complain(UnitscopeWarning(f"warning: {text}"))

    return show
