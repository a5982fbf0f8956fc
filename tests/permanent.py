"""Faults of one prompt that never heal: whatever is tried, a server answers it in the same wrong way."""

import json
from typing import Any

from tests.wire import RESET, Pieces, completion, http

MARK = b"poison"
"""What the prompt of such a request holds."""
HANGS = 1.5
"""Seconds; longer than the timeout of the run."""


def error(status: int, words: str, **fields: Any) -> Pieces:
    return [http(status, json.dumps({"error": {"message": words, **fields}}).encode())]


def message(content: str | None, finish: str = "stop", **fields: Any) -> Pieces:
    """A choice with other fields than those of a good answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **fields}, "finish_reason": finish}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}
    return [http(200, json.dumps(body).encode())]


FAULTS: dict[str, Pieces] = {
    "500": error(500, "the tokenizer failed"),
    "no choices": [http(200, b'{"choices": []}')],
    "hang": [HANGS],
    "400": error(400, "the prompt holds a character that is not allowed here"),
    "403": error(403, "your input was flagged"),
    "404": error(404, "no route for this input"),
    "429 too large": error(429, "Request too large for m on tokens per min (TPM): Limit 6000, Requested 7033"),
    "cut": message("This is how it beg", "length"),
    "empty": message(""),
    "content filter": message("", "content_filter"),
    "refusal": message(None, refusal="I cannot help with that."),
    "half of JSON": [http(200, completion()[:30])],
    "closed": [],
    "reset": [RESET],
}
"""What is sent instead of an answer."""
ANSWERED = {"cut", "empty", "content filter", "refusal"}
"""Those that are chat completions: they are paid for, and recorded."""
REFUSED = {"400", "403", "404", "429 too large"}
"""Those that refuse the request itself: they are recorded as well."""


def poisoned(name: str, body: bytes) -> Pieces:
    """Answer a request; one that holds MARK gets the fault."""
    if MARK in body:
        return FAULTS[name]
    number = json.loads(body)["messages"][-1]["content"].split()[-1]
    return [http(200, completion(f"The answer to number {number} is plain."))]
