"""A repository of the hub: who sees it, and one commit with all files.

A commit is all or nothing. What was uploaded before a cut is not sent again by the next one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datagen.errors import DatagenError, InputError, Outage
from datagen.libraries import import_library
from datagen.llm.keys import is_unheard
from datagen.publish.listing import Upload

ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"
DEFAULT_ENDPOINT = "https://huggingface.co"


class Hub:
    """One repository.

    Args:
        repository: OWNER/NAME.
        kind: dataset or model.
        quiet: Whether its library says nothing of progress and of what it tries again.

    Raises:
        InputError: There is no token, or it could be read on the way.
    """

    def __init__(self, repository: str, kind: str, *, quiet: bool) -> None:
        endpoint = os.environ.get(ENDPOINT) or DEFAULT_ENDPOINT
        token = os.environ.get(TOKEN)
        if not token:
            raise InputError(f"{TOKEN} is not set: a token that may write, from https://huggingface.co/settings/tokens")
        if not is_unheard(endpoint):
            raise InputError(f"{ENDPOINT}: the token would go over http, where anybody can read it; use https")
        self._library = import_library("huggingface_hub", "to upload", "data")
        if quiet:
            utils = import_library("huggingface_hub.utils", "to upload", "data")
            utils.disable_progress_bars()
            utils.logging.set_verbosity_error()
        self._api = self._library.HfApi(endpoint=endpoint, token=token)
        self._repository, self._kind = repository, kind

    def is_private(self) -> bool | None:
        """Return whether only members see the repository; None if there is none."""
        with self._errors():
            try:
                return bool(self._api.repo_info(self._repository, repo_type=self._kind).private)
            except self._library.errors.RepositoryNotFoundError as error:
                if error.response.status_code != 404:
                    raise
                return None

    def create(self, *, private: bool) -> None:
        """Create the repository."""
        with self._errors():
            self._api.create_repo(self._repository, repo_type=self._kind, private=private)

    def commit(self, upload: Upload, message: str) -> str:
        """Upload all files in one commit; return the address of the repository."""
        operations = [
            self._library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
            for name, path in upload.files
        ]
        with self._errors():
            self._api.create_commit(self._repository, operations, commit_message=message, repo_type=self._kind)
        middle = "datasets/" if self._kind == "dataset" else ""
        return f"{self._api.endpoint}/{middle}{self._repository}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn whatever the library raises into one line that says what to do."""
        try:
            yield
        except Exception as error:
            raise self._as_ours(error) from error

    def _as_ours(self, error: Exception) -> DatagenError:
        reason = first_line(error)
        status = status_of(error)
        if status in (401, 403):
            return Outage(
                f"{self._repository}: the hub refuses {TOKEN} (HTTP {status}): it must be valid, and may write here"
            )
        if status == 409:
            return DatagenError(
                f"{self._repository}: was made or changed by somebody else meanwhile: {reason}; run the command again"
            )
        if status is not None and status < 500 and status != 429:
            return InputError(f"{self._repository}: the hub refuses it (HTTP {status}): {reason}")
        if isinstance(error, ValueError) and status is None:
            return InputError(f"{self._repository}: {reason}")
        return Outage(f"{self._repository}: {reason}; run the command again: what has arrived is not sent again")


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or one that led to it, is about."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if isinstance(status := getattr(response, "status_code", None), int):
            return status
        error = error.__cause__ or error.__context__
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, and of the one that led to it, if it says so."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{line}: {first_line(error.__cause__)}" if isinstance(error, RuntimeError) and error.__cause__ else line
