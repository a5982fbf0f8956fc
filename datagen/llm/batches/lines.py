"""The lines of the files of a batch: requests in the form of OpenAI's Batch API, and results, which are not trusted.

https://platform.openai.com/docs/api-reference/batch: a request is {"custom_id", "method", "url", "body"}, a result is
{"custom_id", "response": {"status_code", "body"}, "error"}, in any order.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, NamedTuple

from datagen.llm.claims import Name
from datagen.text import count_of

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
"""Of one file: "up to 50,000 requests, and can be up to 200 MB in size",
https://platform.openai.com/docs/guides/batch."""
LONGEST_RESULT = 64 * 1024**2
"""Bytes of a line: as of an answer that is not in a batch."""


class RequestLine(NamedTuple):
    """A line of the file that is uploaded."""

    name: Name
    line: bytes
    prefix: str
    """The prompt: requests that begin alike stand together."""
    sent: dict[str, Any] | None
    """The parameters, where they are others than those of the call."""


def request_line(name: Name, url: str, body: dict[str, Any], headers: dict[str, str]) -> bytes:
    """Return a line of a file of requests; `headers` describe the call to a test server, and are empty for others."""
    row = {"custom_id": custom_id(name), "method": "POST", "url": url, "body": body}
    return f"{json.dumps({**row, 'headers': headers} if headers else row, ensure_ascii=False)}\n".encode()


def custom_id(name: Name) -> str:
    """Return the name of a call in the files of a batch."""
    return f"{name[0].hex()}:{name[1]}"


def files_of(lines: Iterable[RequestLine]) -> Iterator[list[RequestLine]]:
    """Divide lines, sorted by their prompts, into files that the provider takes."""
    part: list[RequestLine] = []
    size = 0
    for line in sorted(lines, key=lambda line: line.prefix):
        if part and (len(part) == MOST_REQUESTS or size + len(line.line) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line.line)
    if part:
        yield part


@dataclass
class Oddities:
    """What was in the files of results beside one line for each request."""

    unknown: int = 0
    """Lines about requests that are not in the batch."""
    repeated: int = 0
    """The same line once more."""
    contradicting: int = 0
    """Another answer to a request; the first one stands."""
    unreadable: int = 0

    def words(self) -> str:
        """Return what is to be said; empty if all is as it should be."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(count_of(number, f"{name} line") for name, number in counts.items() if number)


class Result(NamedTuple):
    """One line of results."""

    id: str
    status: int
    """The HTTP status; 0 where the provider has not made the request."""
    body: str
    words: str
    """Why the request was not made."""


def read_results(files: Sequence[BinaryIO], names: set[Name], oddities: Oddities) -> dict[Name, Result]:
    """Read the results of a batch from its files; what is odd is counted.

    Args:
        files: Of results, and of errors.
        names: The calls of the batch.
        oddities: Where it is counted.
    """
    by_id, results = {custom_id(name): name for name in names}, dict[Name, Result]()
    for file in files:
        while raw := file.readline(LONGEST_RESULT):
            result = read_result(raw)
            if result is None:
                oddities.unreadable += bool(raw.strip())
            elif (name := by_id.get(result.id)) is None:
                oddities.unknown += 1
            elif (first := results.setdefault(name, result)) is not result:
                oddities.repeated += first == result
                oddities.contradicting += first != result
    return results


def read_result(raw: bytes) -> Result | None:
    """Read one line; None if it is no result."""
    try:
        row = json.loads(raw)
        identity, response, error = row["custom_id"], row.get("response"), row.get("error")
        if not isinstance(identity, str):
            return None
        if response is None:
            return Result(identity, 0, "", error_words(error))
        status, body = response["status_code"], json.dumps(response["body"], ensure_ascii=False)
        body = body if is_text(body) else json.dumps(response["body"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return Result(identity, status, body, "") if type(status) is int and 100 <= status < 600 else None


def error_words(error: Any) -> str:
    """Return what the provider says of a request that it has not made."""
    words = [error.get(name) for name in ("code", "message")] if isinstance(error, dict) else [error]
    return ": ".join(str(word) for word in words if word)[:200]


def is_text(text: str) -> bool:
    """Check that a text has no half characters (lone surrogates); JSON can also write them as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
