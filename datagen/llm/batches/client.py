"""The files and batches of an OpenAI-compatible API through the `openai` client.

https://platform.openai.com/docs/api-reference/batch. What may be repeated is tried again by the client. A batch is
created once: where it is not known whether that worked, the caller looks for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import openai
from openai.types import Batch

from datagen.errors import Outage
from datagen.llm.call import error_message
from datagen.llm.endpoint import HttpClient, PlainClient, request_headers
from datagen.llm.keys import api_key, takes_settings
from datagen.llm.models_file import Access

TOKEN = "datagen"
"""The name of our token in the metadata of a batch."""
TRIES_AGAIN = 3
MOST_LISTED = 100_000
"""Batches that are looked at for one of ours."""
ENDED = ("completed", "failed", "expired", "cancelled")
UNCERTAIN = (408, 409)
"""Beside 5xx: statuses after which the batch may exist all the same."""
MISSING = (404, 405, 501)
"""The server has no such address, or no such thing."""


class Status(NamedTuple):
    """How far a batch is."""

    state: str
    files: list[str]
    """Of results and of errors, as far as there are any."""
    done: int
    total: int
    words: str
    """Why it has failed."""

    @property
    def is_over(self) -> bool:
        return self.state in ENDED


class BatchClient:
    """The batches of one address.

    Args:
        url: The base URL.
        access: The key, headers and query of models.toml.
        http: Sends the requests; who has opened it closes it.
        timeout: Seconds for one request.
    """

    def __init__(self, url: str, access: Access, http: HttpClient, timeout: float) -> None:
        self._url = url
        kind = openai.AsyncOpenAI if takes_settings(url) else PlainClient
        key = api_key(url, access.key)
        client = kind(base_url=url, api_key=key, http_client=http, timeout=timeout, max_retries=0)
        self._once, self._client = client, client.with_options(max_retries=TRIES_AGAIN)
        self._extra: dict[str, Any] = {
            "extra_headers": request_headers(url, access),
            "extra_query": dict(access.query),
        }

    async def upload(self, token: str, file: BinaryIO) -> str:
        """Upload a file of requests; return its name there."""
        with self._one_line_errors("the requests cannot be uploaded"):
            uploaded = await self._client.files.create(
                file=(f"{TOKEN}-{token}.jsonl", file, "application/jsonl"), purpose="batch", **self._extra
            )
            return text(uploaded.id)

    async def create(self, path: str, file: str, token: str) -> str | None:
        """Create a batch; return its name there, or None where it is not known whether it was created.

        Raises:
            Outage: The server does not create it.
        """
        try:
            batch = await self._once.batches.create(
                completion_window="24h",
                endpoint=f"/v1/{path}",  # type: ignore[arg-type]
                input_file_id=file,
                metadata={TOKEN: token},
                **self._extra,
            )
            return text(batch.id)
        except openai.APIStatusError as error:
            if error.status_code >= 500 or error.status_code in UNCERTAIN:
                return None
            raise self._outage("the batch was not taken", error) from error
        except (openai.OpenAIError, ValueError):
            return None

    async def find(self, token: str, file: str) -> str | None:
        """Return the name of the batch with a token or a file of requests; None if there is none."""
        with self._one_line_errors("the batches cannot be listed"):
            number = 0
            async for batch in self._client.batches.list(limit=100, **self._extra):
                tags = batch.metadata if isinstance(batch.metadata, dict) else {}
                if batch.input_file_id == file or tags.get(TOKEN) == token:
                    return text(batch.id)
                if (number := number + 1) >= MOST_LISTED:
                    raise ValueError(f"more than {MOST_LISTED:,}")
        return None

    async def look(self, identity: str) -> Status:
        """Return how far a batch is."""
        with self._one_line_errors(f"batch {identity} cannot be looked at"):
            batch = await self._client.batches.retrieve(identity, **self._extra)
            files = [name for name in (batch.output_file_id, batch.error_file_id) if isinstance(name, str) and name]
            counts = getattr(batch, "request_counts", None)
            done, total = (number_of(counts, "completed") + number_of(counts, "failed"), number_of(counts, "total"))
            return Status(text(batch.status), files, done, total, failure_words(batch))

    async def download(self, name: str, into: BinaryIO) -> None:
        """Write the contents of a file."""
        with self._one_line_errors("the answers cannot be downloaded"):
            for number in range(TRIES_AGAIN + 1):
                into.seek(0)
                into.truncate()
                try:
                    async with self._client.files.with_streaming_response.content(name, **self._extra) as response:
                        async for piece in response.iter_bytes():
                            into.write(piece)
                    into.seek(0)
                    return
                except openai.APIStatusError:
                    raise
                except Exception:  # of the libraries below: the connection was lost on the way
                    if number == TRIES_AGAIN:
                        raise

    async def cancel(self, identity: str) -> bool:
        """Cancel a batch, as far as it is not done; tell whether the server can."""
        return await self._can(self._client.batches.cancel(identity, **self._extra), f"cancel {identity}")

    async def delete(self, file: str) -> bool:
        """Delete a file, so that no batch can be created from it any more; tell whether the server can."""
        return await self._can(self._client.files.delete(file, **self._extra), f"delete {file}")

    async def _can(self, request: Any, what: str) -> bool:
        with self._one_line_errors(f"the server does not {what}"):
            try:
                await request
            except openai.APIStatusError as error:
                if 400 <= error.status_code < 500 or error.status_code in MISSING:
                    return False
                raise
        return True

    @contextmanager
    def _one_line_errors(self, what: str) -> Iterator[None]:
        """Turn whatever the client raises into an Outage of one line."""
        try:
            yield
        except Outage:
            raise
        except Exception as error:  # of the client and the libraries below it: there is no list of what they raise
            raise self._outage(what, error) from error

    def _outage(self, what: str, error: Exception) -> Outage:
        words = " ".join(str(error).split())[:200]
        way_out = "Run the same command again to continue."
        if isinstance(error, openai.APIStatusError):
            words = f"HTTP {error.status_code}: {error_message(error.response.text)}"
            if error.status_code in MISSING:
                way_out = (
                    "Does the server offer batches, and is the key that of the same account? Without --batch, requests "
                    "are sent one by one."
                )
        return Outage(f"{self._url}: {what} ({words.rstrip('.')}). {way_out}")


def text(value: object) -> str:
    """Return a name from a reply; raise ValueError if it is none."""
    if not isinstance(value, str) or not value or len(value) > 500 or not value.isprintable():
        raise ValueError(f"no name in the reply: {str(value)[:100]!r}")
    return value


def number_of(counts: object, name: str) -> int:
    """Return a count from a reply; 0 if it is none."""
    value = getattr(counts, name, 0)
    return value if isinstance(value, int) else 0


def failure_words(batch: Batch) -> str:
    """Return the provider's first words about a batch that has failed."""
    try:
        return " ".join(str(batch.errors.data[0].message).split())[:300]  # type: ignore[union-attr, index]
    except (AttributeError, LookupError, TypeError):
        return ""
