"""An OpenAI-compatible endpoint through the `openai` client; the only module that imports it.

The client's own retries are off: a 429 must reach the limiter. Its aiohttp transport and the raw `.post` are used
since its typed path costs several times more per request than everything else here (docs/performance.md). Every outcome
becomes one of four things: a Reply to record (an answer, or the refusal of this request), Transient (worth sending
again), Outage (no call can succeed now), or a bug.
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
from datagen.llm.call import Call, Reply, Transient, error_message
from datagen.llm.spec import api_key, is_loopback

CONNECT_TIMEOUT = 10.0
"""Seconds."""
RETRY_STATUS = {408, 409, 425, 429}
OUTAGE_STATUS = {401: "the key is refused", 403: "access is refused", 404: "no such endpoint or model"}
RENAMED = {"max_tokens": "max_completion_tokens"}
"""Parameters that newer models refuse, and what replaces them."""


class Endpoint:
    """The innermost layer of a model on a server: sends a call once.

    Args:
        url: The base URL of the API.
        name: The name that the server knows.
        timeout: Seconds, for one whole request.
        connections: The most connections at once.
    """

    def __init__(self, url: str, name: str, *, timeout: float, connections: int) -> None:
        self._name, self._url = name, url
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key(url),
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_TIMEOUT),
            http_client=openai.DefaultAioHttpClient(limits=limits),
        )
        self._describe_calls = is_loopback(url)
        """Send each call's place in the run as a header, for test servers."""
        self._unsupported: set[str] = set()
        """Parameters that this model refused."""

    async def send(self, call: Call) -> Reply:
        # 1. Leave out or rename what this model refused before; the call key holds the parameters as requested.
        params = call.params
        if self._unsupported:
            kept = {name: value for name, value in params.items() if name not in self._unsupported}
            refused = params.keys() & self._unsupported & RENAMED.keys()
            params = kept | {RENAMED[name]: params[name] for name in refused}

        # 2. Send the request and read the reply.
        headers = {}
        if self._describe_calls:
            description = {"key": call.key.hex(), "sample": call.sample, "attempt": call.attempt, "task": call.task}
            headers["x-datagen"] = json.dumps(description)
        body = {"model": self._name, "messages": call.messages, **params}
        try:
            response = await self._client.post(
                "/chat/completions", cast_to=httpx2.Response, body=body, options={"headers": headers}
            )
            reply = Reply(response.status_code, response.content.decode())
        except openai.APIStatusError as error:
            return await self._read_refusal(call, error)
        except openai.APIConnectionError as error:  # with the aiohttp transport every fault arrives as a timeout
            cause = error.__cause__ or error
            kind = "timed out" if isinstance(cause, httpx2.ReadTimeout) else "no connection"
            raise Transient(f"{kind} ({type(cause).__name__}: {str(cause)[:100]})") from error
        except UnicodeDecodeError as error:
            raise Transient("the answer is not UTF-8") from error
        if not reply.is_chat_completion:
            raise Transient(f"no chat completion in the answer: {reply.body[:60]!r}")
        return reply

    async def _read_refusal(self, call: Call, error: openai.APIStatusError) -> Reply:
        """Decide what an error status means: an outage, a transient fault, a parameter to leave out, or a refusal."""
        status, body = error.status_code, error.response.text
        message = error_message(body)
        if status in OUTAGE_STATUS:
            raise Outage(f"{self._name} at {self._url}: {OUTAGE_STATUS[status]} (HTTP {status}): {message}") from error
        if status == 402 or "insufficient_quota" in body:
            raise Outage(f"{self._name} at {self._url}: the account is out of credit: {message}") from error
        if status in RETRY_STATUS or status >= 500:
            wait = retry_after(error.response.headers)
            raise Transient(f"HTTP {status}: {message}", retry_after=wait, rate_limited=status == 429) from error
        if status == 400 and (name := unsupported_parameter(body, call.params)) not in (None, *self._unsupported):
            self._unsupported.add(str(name))
            return await self.send(call)
        return Reply(status, body)

    async def close(self) -> None:
        await self._client.close()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait: `retry-after-ms`, or `retry-after` as seconds or a date."""
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
    """Return the parameter that a 400 names as unsupported, if the request had it."""
    try:
        error = json.loads(body)["error"]
        name, code = error.get("param"), str(error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return name if code.startswith("unsupported") and name in params else None
