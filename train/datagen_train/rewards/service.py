"""A reward that is a service: answers go there as text, and scores come back.

POST {"prompts": [...], "responses": [...]}, answered by {"rewards": [number or null, ...]}
"""

from collections.abc import Sequence
from typing import Any

from datagen.records.record import Messages, Text
from datagen_train.errors import TrainingStopped

Score = float | None
TRIES, TIMEOUT = 3, 60.0
"""Of a request; seconds."""


def said(completion: str | Messages) -> str:
    """Return the words of a completion in either form."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def first_line(error: BaseException) -> str:
    return [*str(error).strip().splitlines(), type(error).__name__][0][:300]


class Endpoint:
    """A service of yours. What fails in transport is tried again; what it refuses is not."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        body = {"prompts": list(prompts), "responses": [said(each) for each in completions]}
        for left in reversed(range(TRIES)):
            try:
                return self._ask(body)
            except TransportFault as fault:
                if not left:
                    raise TrainingStopped(f"reward {self._url}: {fault}, {TRIES} times") from fault
        raise AssertionError

    def _ask(self, body: dict[str, Any]) -> list[Score]:
        import httpx2

        try:
            reply = httpx2.post(self._url, json=body, timeout=TIMEOUT)
        except httpx2.TransportError as error:
            raise TransportFault(first_line(error)) from error
        if reply.status_code >= 500 or reply.status_code == 429:
            raise TransportFault(f"HTTP {reply.status_code}")
        if reply.status_code != 200:
            raise TrainingStopped(f"reward {self._url}: HTTP {reply.status_code}: {reply.text[:200]!r}")
        try:
            return list(reply.json()["rewards"])
        except (ValueError, KeyError, TypeError):
            raise TrainingStopped(f'reward {self._url}: no JSON with "rewards": {reply.text[:200]!r}') from None


class TransportFault(Exception):
    """A request that may do better the next time."""
