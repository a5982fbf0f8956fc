"""An OpenAI-compatible endpoint through the `openai` client; the only module that imports it.

The client says what all requests have in common, its address and headers, and its aiohttp transport sends them. Its
own path from a call to a request and back costs more than everything else here (docs/performance.md), and its retries
would hide a 429 from the limiter, so neither is used. Every outcome becomes one of three things: a Reply to record (an
answer, or the refusal of this request), Transient (worth sending again) or Outage (no call can succeed now). What is in
no table is Transient, and never recorded.
"""

import asyncio
import json
import os
import re
from collections.abc import Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from socket import gaierror
from time import time
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from datagen.errors import InputError, Outage, causes
from datagen.llm.allowances import Allowance, read_allowances
from datagen.llm.call import Adapted, Call, Doubtful, Reply, Transient, error_message, refusal
from datagen.llm.dialects import read_message
from datagen.llm.facts import Learner
from datagen.llm.forms import FORM, Forms
from datagen.llm.keys import BEARER, api_key, extra_headers, key_header, key_hint, takes_settings
from datagen.llm.models_file import Access
from datagen.llm.names import is_same_model
from datagen.llm.parameters import Parameters
from datagen.llm.spec import is_loopback, without_proxy

CONNECT_TIMEOUT = 10.0
"""Seconds."""
TEST_HEADER, TEST_VARIABLE = "x-datagen", "DATAGEN_TEST_HEADER"
"""The header that describes a call to a test server on this machine, and the variable that asks for it."""
OUTAGE_STATUS = {
    401: "the key is refused",
    402: "the account is out of credit",
    403: "access is refused",
    404: "no such endpoint or model",
    405: "no such endpoint",
    407: "a proxy refuses the request",
    410: "no such endpoint or model",
}
OUTAGE_HINTS = {
    401: "The server does not take the key that was sent: is it for this address, and still valid?",
    402: "Add credit there, or name another model",
    404: "datagen doctor --model {name}@{url} says which models are there",
    405: "Is the address that of an OpenAI-compatible API?",
    407: "Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    410: "datagen doctor --model {name}@{url} says which models are there",
}
"""What to do about it, where nothing better is known."""
REFUSAL_STATUS = {400, 413, 414, 415, 422, 431, 451}
"""What is wrong is this request."""
BUSY_STATUS = {429, 503, 529}
"""The server is there, and takes no more requests for now."""
DOUBTFUL_STATUS = {403, 404}
"""What is wrong may be this request, such as a prompt that is flagged, or all requests."""
REFUSED_PARAMETER = {400, 422}
"""Statuses whose words may name a parameter."""
REFUSED_FORM = {*REFUSED_PARAMETER, 404, 500, 501}
"""Statuses whose words may name the form of the answer: a server that cannot compile a schema may just fail."""
TOO_LARGE = re.compile(r"request too large|too large for", re.IGNORECASE)
"""Of a 429 that no wait will help: one request asks for more than a minute has."""
WAIT_IN_WORDS = re.compile(
    r"(?:retryDelay\W{1,5}|(?:try again|retry|wait)(?: in| after)? )"
    r"(?:(\d{1,4})m)?(\d{1,9}(?:\.\d{1,9})?) ?(ms|min|s)?",
    re.IGNORECASE,
)
"""The wait that a server asks for in the body of an error: minutes, and seconds or milliseconds."""
MOST_NAME = 100
"""Characters of a model's name in a message."""
LONGEST_ANSWER = 64 * 1024**2
"""Bytes, decoded. The log-probabilities of a long answer are the longest that a server sends."""
LONGEST_ERROR = 64 * 1024
"""Bytes of the body of an error; the rest is not read."""
MOST_REDIRECTS = 3


class Received(NamedTuple):
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """Decoded from what the header Content-Encoding says."""
    allowances: tuple[Allowance, ...]
    """By its headers."""

    @property
    def text(self) -> str:
        """The body of an error as text."""
        return self.body.decode(errors="replace")


Headers = Mapping[str, str | openai.Omit]
encode_body = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


class HttpClient(openai.DefaultAioHttpClient):
    """Sends a request and reads its whole response, within the bounds of time and size.

    Args:
        url: The base URL, for messages.
        deadline: Seconds from the connection to the last byte.
        settings: Of the HTTP client.
    """

    def __init__(self, url: str, deadline: float, **settings: Any) -> None:
        super().__init__(follow_redirects=False, **settings)
        self._url, self._deadline = url, deadline

    async def exchange(self, request: httpx2.Request) -> Received:
        """Send a request and read the response. Any fault on the way is raised as Transient."""
        response = None
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._send_on(request)
                body = await read_body(response)
        except Exception as error:  # of the client and the libraries below it: there is no list of what they raise
            raise self._fault(error, is_paid=response is not None and response.is_success) from error
        return Received(response.status_code, response.headers, body, read_allowances(response.headers.raw))

    async def _send_on(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and again where the same host asks for it under another path."""
        response = await self.send(request, stream=True)
        for _ in range(MOST_REDIRECTS):
            following = response.next_request
            if following is None or following.method != request.method or origin(following) != origin(request):
                break
            await response.aclose()
            response = await self.send(following, stream=True)
        return response

    def _fault(self, error: Exception, *, is_paid: bool) -> Transient:
        """Say what went wrong, from the operating system's error if there is one."""
        if isinstance(error, TimeoutError):
            return Transient(f"no whole answer within --timeout {self._deadline:g} s", timed_out=True, is_paid=is_paid)
        for cause in causes(error):
            if isinstance(cause, ConnectionRefusedError):
                return Transient(f"nothing listens at {self._url}", unreachable=True)
            if isinstance(cause, gaierror):
                return Transient(f"the host of {self._url} is not known ({cause.strerror})", unreachable=True)
        was_open = is_lost(error)
        is_connect = isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError) and not was_open
        words = " ".join(str(error).split())[:100]
        is_unread = isinstance(error, httpx2.TransportError) and not is_paid
        unread = "the connection was closed" if was_open else "no connection"
        what = unread if is_unread else "the answer cannot be read"
        return Transient(f"{what} ({type(error).__name__}: {words})", unreachable=is_connect, is_paid=is_paid)


def is_lost(error: BaseException) -> bool:
    """Check that a connection was there and was closed; the transport takes that for a failure to connect."""
    lost = aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError
    return any(isinstance(cause, lost) for cause in causes(error))


def origin(request: httpx2.Request) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a request."""
    return request.url.scheme, request.url.host, request.url.port


async def read_body(response: httpx2.Response) -> bytes:
    """Read and decode a body, piece by piece: a small compressed one may become very large.

    Raises:
        ValueError: An answer is longer than LONGEST_ANSWER. An error is cut at LONGEST_ERROR.
    """
    body = bytearray()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > LONGEST_ERROR and not response.is_success:
                break
            if len(body) > LONGEST_ANSWER:
                raise ValueError(f"the answer is longer than {LONGEST_ANSWER:,} bytes")
    return bytes(body)


class Endpoint:
    """The innermost layer of a model on a server: sends a call once. A subclass asks for something else than answers.

    Args:
        url: The base URL of the API.
        name: The name that the server knows.
        timeout: Seconds, for one whole request.
        connections: The most connections at once.
        access: The key, headers and query of models.toml.
    """

    path: ClassVar[str] = "chat/completions"
    """Where requests go, below the base URL."""
    answer: ClassVar[str] = "chat completion"
    """What a reply of status 200 holds."""

    def __init__(self, url: str, name: str, *, timeout: float, connections: int, access: Access | None = None) -> None:
        self._name, self._url, self._access = name, url, access or Access()
        self.http, self._pattern = open_client(url, self.path, timeout, connections, self._access)
        self._describe_calls = is_loopback(url) and bool(os.environ.get(TEST_VARIABLE))
        """Send each call's place in the run as a header."""
        self.parameters, self._forms = Parameters(f"{name} at {url}"), Forms(f"{name} at {url}")
        self.learners: dict[str, Learner] = {"": self.parameters, "forms": self._forms}
        self.notes: list[str] = []
        """What is to be said of the answers."""

    async def send(self, call: Call) -> Reply:
        params = self.adapted(call)
        try:
            content = encode_body(self.body(call, params)).encode()
        except UnicodeEncodeError:
            return refusal(400, "not sent: the prompt holds half a character (a lone surrogate)")
        return self.read(await self.http.exchange(self._request(call, content)), call, params)

    def body(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a request with these parameters."""
        return {"model": self._name, **call.content, **params}

    def read(self, received: Received, call: Call, params: Mapping[str, Any]) -> Reply:
        """Read the response to a call; `params` are the parameters that were sent. Raises as `send`."""
        if not 200 <= received.status < 300:
            if received.status in REFUSED_FORM and self._adapts(received, call, params):
                raise Adapted
            return self._read_refusal(received)
        try:
            reply = Reply(received.status, received.body.decode(), allowances=received.allowances)
        except UnicodeDecodeError as error:
            raise Transient("the answer is not UTF-8", is_paid=True) from error
        if not self._is_answer(reply):
            raise Transient(f"no {self.answer} in the answer: {error_message(reply.body)!r}", is_paid=True)
        self._look_at(reply, call, params)
        self._check_name(reply)
        return reply

    def _is_answer(self, reply: Reply) -> bool:
        return reply.is_chat_completion

    def _look_at(self, reply: Reply, call: Call, sent: Mapping[str, Any]) -> None:
        """Learn from an answer what the server has made of the parameters that were sent."""
        self.parameters.check(reply, call.params, sent)
        if call.schema and FORM in sent:
            self._forms.watch(read_message(reply.parsed["choices"][0]["message"]).text)

    def adapted(self, call: Call) -> Mapping[str, Any]:
        """Return the parameters of a call without what this model has refused; its key holds them as asked for."""
        return self._forms.adapted(self.parameters.adapted(call.params, call.messages), call.schema)

    def _adapts(self, received: Received, call: Call, sent: Mapping[str, Any]) -> bool:
        """Learn from a refusal; return whether the call is now sent in another way."""
        if self.adapted(call) == sent:  # else more is known than when it was sent
            is_form = call.schema is not None and self._forms.learn(received.text, sent)
            if not is_form and received.status in REFUSED_PARAMETER:
                self.parameters.learn(received.text, sent, call.messages)
        return self.adapted(call) != sent

    def _check_name(self, reply: Reply) -> None:
        """Note that the answer names another model than the request, for the first time."""
        name = reply.parsed.get("model")
        if name != self._name and not self.notes and isinstance(name, str) and not is_same_model(self._name, name):
            place = f"{self._name} at {self._url}"
            self.notes.append(f"{place}: the server names another model in its answers: {name[:MOST_NAME]}")

    def description(self, call: Call) -> dict[str, str]:
        """Return the header for a test server on this machine; empty for any other."""
        place = {"key": call.key.hex(), "sample": call.sample, "attempt": call.attempt, "task": call.task}
        return {TEST_HEADER: json.dumps(place)} if self._describe_calls else {}

    def _request(self, call: Call, content: bytes) -> httpx2.Request:
        """Return the request of a call."""
        pattern, headers = self._pattern, self._pattern.headers
        if description := self.description(call):
            headers = httpx2.Headers({**headers, **description})
        return httpx2.Request(
            pattern.method, pattern.url, headers=headers, content=content, extensions=pattern.extensions
        )

    def _read_refusal(self, received: Received) -> Reply:
        """Decide what an error status means: an outage, a transient fault, or a refusal."""
        status, headers, body = received.status, received.headers, received.text
        message, place = error_message(body), f"{self._name} at {self._url}"
        if status < 400:
            where = f" to {headers['location'][:200]}" if "location" in headers else ""
            raise Outage(
                f"{place}: the server sends requests away{where} (HTTP {status}). Give --model NAME@URL the address "
                "that answers; a request follows to no other host"
            )
        if "insufficient_quota" in body:
            raise Outage(f"{place}: {OUTAGE_STATUS[402]}: {message.rstrip('.')}. {OUTAGE_HINTS[402]}")
        if status in OUTAGE_STATUS:
            is_keyless = status == 401 and bool(key_hint(self._url, self._access.key))
            fault = "asks for a key" if is_keyless else OUTAGE_STATUS[status]
            says = f"{place}: {fault} (HTTP {status}): {message}"
            hint = outage_hint(status, self._name, self._url, self._access)
            outage = Outage(f"{says.rstrip('.')}. {hint}" if hint else says)
            raise Doubtful(Reply(status, body), outage) if status in DOUBTFUL_STATUS else outage
        if status in REFUSAL_STATUS or (status == 429 and TOO_LARGE.search(message)):
            return Reply(status, body)
        wait = retry_after(headers) or wait_in_words(body)
        is_busy = status in BUSY_STATUS
        raise Transient(
            f"HTTP {status}: {message}", retry_after=wait, rate_limited=is_busy, allowances=received.allowances
        )

    async def close(self) -> None:
        await self.http.aclose()


class PlainClient(openai.AsyncOpenAI):
    """The client for servers that the OPENAI_ variables are not meant for: no header comes from the environment."""

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": self.user_agent}


def open_client(
    url: str, path: str, deadline: float, connections: int, access: Access
) -> tuple[HttpClient, httpx2.Request]:
    """Open the client for a path below a URL; return it, and the pattern of all requests: only their content differs.

    It reads certificates and proxies from the environment.

    Raises:
        InputError: The key, or what else it found there, cannot be used.
    """
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    try:
        http = HttpClient(url, deadline, limits=limits, mounts=without_proxy(url))
        client = (openai.AsyncOpenAI if takes_settings(url) else PlainClient)(
            base_url=url, api_key=api_key(url, access.key), http_client=http
        )
        address = client.base_url.join(path).copy_merge_params(access.query)
        headers = merge_headers(client.auth_headers, client.default_headers, request_headers(url, access))
        pattern = http.build_request(
            "POST", address, headers=headers, timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT)
        )
    except (OSError, ValueError, httpx2.InvalidURL) as error:
        raise InputError(
            f"{url}: no connection can be opened: {error}. Certificates come from SSL_CERT_FILE and SSL_CERT_DIR, "
            "proxies from HTTP_PROXY, HTTPS_PROXY and ALL_PROXY: correct them, or unset them"
        ) from error
    del pattern.headers["content-length"]
    return http, pattern


def request_headers(url: str, access: Access) -> Headers:
    """Return the headers of every request, beside those of the client; some hosts take the key in one of their own."""
    headers: Headers = {}
    if (header := key_header(url)) != BEARER:
        headers = {BEARER: openai.Omit(), header: api_key(url, access.key)}
    return {**headers, **extra_headers(url, access.headers)}


def merge_headers(*parts: Headers) -> httpx2.Headers:
    """Return all of these headers; the last of one name counts, whatever its case."""
    headers = httpx2.Headers()
    for name, value in (header for part in parts for header in part.items()):
        if isinstance(value, openai.Omit):
            headers.pop(name, None)
        else:
            headers[name] = value
    return headers


def outage_hint(status: int, name: str, url: str, access: Access) -> str:
    """Return what to do about a status that refuses the caller; empty where the server's own words must do."""
    if status in (401, 403) and (hint := key_hint(url, access.key)):
        return hint
    if status in (404, 405) and not urlsplit(url).path.strip("/"):
        return f"Does the address end in /v1? {url}/v1"
    return OUTAGE_HINTS.get(status, "").format(name=name, url=url)


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait: `retry-after-ms`, or `retry-after` as seconds or a date."""
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def wait_in_words(body: str) -> float:
    """Return the seconds that a server asks to wait in the body of an error; 0 if it asks for none."""
    match = WAIT_IN_WORDS.search(body)
    if not match:
        return 0.0
    minutes, number, unit = match.groups()
    return 60 * float(minutes or 0) + float(number) * {"ms": 0.001, "min": 60}.get((unit or "s").lower(), 1)
