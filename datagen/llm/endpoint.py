"""An OpenAI-compatible endpoint through the `openai` client; the only module that imports it.

The client's own retries are off: a 429 must reach the limiter. Its aiohttp transport and the raw `.post` are used
since its typed path costs several times more per request than everything else here (docs/performance.md). Every
outcome becomes one of four things: a Reply to record (an answer, or the refusal of this very request), Transient
(worth sending again), Outage (no call can succeed now), or a bug.
"""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2
import openai

from datagen.errors import Outage
from datagen.llm.call import Call, Reply, Transient, error_message, is_chat_completion
from datagen.llm.spec import api_key, is_loopback

CONNECT_TIMEOUT = 10.0
"""Seconds."""
RETRY_STATUS = {408, 409, 425, 429}
OUTAGE_STATUS = {401: "the key is refused", 403: "access is refused", 404: "no such endpoint or model"}
RENAMED = {"max_tokens": "max_completion_tokens"}
"""What newer models want instead of a parameter that they refuse."""


class Endpoint:
    """The innermost layer: sends a call, once."""

    def __init__(self, url: str, name: str, *, timeout: float, connections: int) -> None:
        """`timeout` in seconds, for one whole request."""
        self._name, self._url = name, url
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key(url),
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_TIMEOUT),
            http_client=openai.DefaultAioHttpClient(limits=limits),
        )
        self._tell_test_server = is_loopback(url)
        self._unsupported: set[str] = set()

    async def send(self, call: Call) -> Reply:
        try:
            reply = await self._post(call)
        except openai.APIStatusError as error:
            return await self._refused(call, error)
        except openai.APIConnectionError as error:
            raise Transient(connection_problem(error)) from error
        if not is_chat_completion(reply):
            raise Transient(f"no chat completion in the answer: {reply.body[:60]!r}")
        return reply

    async def _post(self, call: Call) -> Reply:
        body = {"model": self._name, "messages": call.messages, **self._adapt(call.params)}
        headers = {}
        if self._tell_test_server:
            told = {"key": call.key.hex(), "sample": call.sample, "attempt": call.attempt, "task": call.task}
            headers["x-datagen"] = json.dumps(told)
        response = await self._client.post(
            "/chat/completions", cast_to=httpx2.Response, body=body, options={"headers": headers}
        )
        try:
            return Reply(response.status_code, response.content.decode())
        except UnicodeDecodeError as error:
            raise Transient("the answer is not UTF-8") from error

    def _adapt(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Rename or leave out what this model refused before; the call key holds what was asked."""
        if not self._unsupported:
            return dict(params)
        kept = {k: v for k, v in params.items() if k not in self._unsupported}
        renamed = {RENAMED[k]: v for k, v in params.items() if k in self._unsupported and k in RENAMED}
        return kept | renamed

    async def _refused(self, call: Call, error: openai.APIStatusError) -> Reply:
        """Decide what an error status means."""
        status, body = error.status_code, error.response.text
        said = error_message(body)
        if status in OUTAGE_STATUS:
            raise Outage(f"{self._name} at {self._url}: {OUTAGE_STATUS[status]} (HTTP {status}): {said}") from error
        if status == 402 or "insufficient_quota" in body:
            raise Outage(f"{self._name} at {self._url}: the account is out of credit: {said}") from error
        if status in RETRY_STATUS or status >= 500:
            wait = retry_after(error.response.headers)
            raise Transient(f"HTTP {status}: {said}", retry_after=wait, limited=status == 429) from error
        if status == 400 and (param := unsupported_parameter(body, call.params)) not in (None, *self._unsupported):
            self._unsupported.add(str(param))
            return await self.send(call)
        return Reply(status, body)

    async def close(self) -> None:
        await self._client.close()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError):
        return 0.0


def unsupported_parameter(body: str, params: Mapping[str, Any]) -> str | None:
    """Return the parameter that a 400 names as not supported, if we sent it."""
    try:
        error = json.loads(body)["error"]
        param, code = error.get("param"), str(error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return param if code.startswith("unsupported") and param in params else None


def connection_problem(error: openai.APIConnectionError) -> str:
    """Say what happened below the client: with its aiohttp transport every fault arrives as a timeout."""
    cause = error.__cause__ or error
    kind = "timed out" if isinstance(cause, httpx2.ReadTimeout) else "no connection"
    return f"{kind} ({type(cause).__name__}: {str(cause)[:100]})"
