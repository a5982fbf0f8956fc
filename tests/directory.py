"""A local HTTP server of pages by path, to play what servers of several kinds say of themselves."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from time import time
from typing import Any

from tests.wire import listening

Pages = Mapping[str, Any]
"""Path to a JSON value, to bytes, to (status, value), or to a function of the headers and the JSON value of a request
that returns one of these."""


@dataclass
class Directory:
    """A running server."""

    pages: Pages
    ahead: float = 0.0
    """Seconds by which its clock is ahead."""
    url: str = ""
    port: int = 0
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Method and path, headers with small letters, and the JSON value of all requests."""


class Handler(BaseHTTPRequestHandler):
    directory: Directory
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        value = json.loads(self.rfile.read(length) or b"null")
        headers = {name.lower(): text for name, text in self.headers.items()}
        path = self.path.partition("?")[0]
        self.directory.requests.append((f"{self.command} {path}", headers, value))
        page = self.directory.pages.get(path, (404, {"error": {"message": "Not Found"}}))
        if callable(page):
            page = page(headers, value)
        status, value = page if isinstance(page, tuple) else (200, page)
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.directory.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        if status in (301, 302, 307):
            self.send_header("Location", value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(pages: Pages, *, ahead: float = 0.0) -> Iterator[Directory]:
    """Run a server on a port of its own."""
    directory = Directory(pages, ahead)
    with listening(Handler, directory=directory) as port:
        directory.port, directory.url = port, f"http://127.0.0.1:{port}/v1"
        yield directory


def model_list(*names: str, **fields: Any) -> dict[str, Any]:
    """Return a list of models, as servers have it."""
    return {"object": "list", "data": [{"id": name, "object": "model", **fields} for name in names]}


def behind_key(key: str, value: Any, header: str = "authorization") -> Callable[[Mapping[str, str], Any], Any]:
    """Return a page for those who send a key."""
    refused = 401, {"error": {"message": f"Incorrect API key provided: {key}x."}}
    return lambda headers, _: value if headers.get(header, "").endswith(key) else refused
