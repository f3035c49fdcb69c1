"""The Hugging Face hub: files of a repository, from its cache or fetched once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unitscope.errors import (
    DownloadError,
    MissingExtraError,
    ModelError,
    one_line,
)

# The hub's own client waits for ever for a server that does not answer.
_SECONDS = 10.0


def fetch_snapshot(
    repository: str, files: Sequence[str], progress: bool | None, otherwise: str
) -> Path:
    """Fetch the files of a repository into a folder, which is named by the commit.

    `repository` is "organisation/name" or "organisation/name@revision"; `files` are
    names or patterns; `otherwise` is one more remedy, for errors. What the cache holds
    already needs no connection. Raises DownloadError.
    """
    hub = _hub()
    name, _, revision = repository.partition("@")
    with _quiet(hub, progress):
        unreachable = _connection_failure(hub, name, revision)
        try:
            folder = hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(files),
                local_files_only=unreachable is not None,
            )
        except Exception as error:
            cause = unreachable or error
            raise _unavailable(hub, name, revision, cause, otherwise) from None
    return Path(folder)


def _connection_failure(hub: Any, name: str, revision: str) -> Exception | None:
    """The error with which a repository answers; None where it can be reached."""
    try:
        hub.HfApi().model_info(
            name, revision=revision or None, timeout=_SECONDS
        )
    except Exception as error:
        # The client raises its own errors, its HTTP library's, and the system's.
        return error
    return None


def _unavailable(
    hub: Any, name: str, revision: str, error: Exception, otherwise: str
) -> ModelError:
    errors = hub.utils
    address = f"{hub.constants.ENDPOINT}/{name}"
    if isinstance(error, errors.HFValidationError):
        return ModelError(
            f"'{name}' cannot be the name of a repository on the Hugging Face hub: "
            f"{otherwise}"
        )
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{address} is only for those who accept its terms: do so there, then run "
            "'hf auth login'"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return DownloadError(
            f"{address} does not exist, or is private: check the name, run 'hf auth "
            f"login' for a private one, or {otherwise}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DownloadError(
            f"{address} has no revision '{revision}': name a branch, a tag or a commit "
            "of it"
        )
    if hub.constants.HF_HUB_OFFLINE:
        return DownloadError(
            f"{address} is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch "
            f"it: unset that, or {otherwise}"
        )

    cause: BaseException = error
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__ or error
    return DownloadError(
        f"{address} cannot be fetched ({one_line(cause)}): check the connection, set "
        f"HF_ENDPOINT to a mirror, or {otherwise}"
    )


@contextlib.contextmanager
def _quiet(hub: Any, progress: bool | None) -> Iterator[None]:
    """Keep the hub's client from logging, and from unwanted progress bars."""
    logging = hub.utils.logging
    level = logging.get_verbosity()
    unwanted = progress is False or not sys.stderr.isatty()
    # With this variable set the client minds its own switch, and warns when another is
    # used.
    may_switch = "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    hidden = (
        unwanted and may_switch and not hub.utils.are_progress_bars_disabled()
    )

    logging.set_verbosity_error()
    if hidden:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if hidden:
            hub.utils.enable_progress_bars()


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError:
        raise MissingExtraError(
            "huggingface_hub", "transformers", "a model on the Hugging Face hub"
        ) from None
    return huggingface_hub
