"""The page of `datagen review` and its server.

The answers of a row are in a random order, drawn from the row's id and the reviewer, and nothing on the page says which
model wrote them or how a judge ranked them. Each vote is on disk before the next row is shown (votes.py).

The server is that of the standard library: one reviewer, a few routes. Only this machine can reach it, and only with
the token of the link. A Host header other than our own (DNS rebinding) and requests that another page sends are
refused. Text from models goes to the page as JSON and becomes text nodes there, never markup; the content security
policy allows only our own script and style.
"""

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from datagen.judges.review.summary import summarize
from datagen.judges.review.votes import Log, parse_vote, placement
from datagen.records.record import Record, Row, as_messages

PAGES = Path(__file__).with_name("pages")
FILES = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
}
JSON, PLAIN = "application/json", "text/plain; charset=utf-8"
LOOPBACK = "127.0.0.1"
MAX_VOTE_BYTES = 1 << 16
"""A vote is an id and a few numbers."""
NO_COOKIE = "open the link that 'datagen review' printed"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Review:
    """The rows that one person reviews, and their votes; safe to use from several threads."""

    def __init__(self, records: Sequence[Record], log: Log) -> None:
        self.records, self.log = records, log
        self._index = {record.id: index for index, record in enumerate(records)}
        self._lock = Lock()

    def page(self, index: int | None = None, start: int = 0) -> Row:
        """Return the contents of the page.

        Args:
            index: The row; the number of rows for the summary; None for the first row without a vote, or the summary
                if there is none.
            start: The row from which on to look for one without a vote; those before it come last.
        """
        with self._lock:
            total, votes = len(self.records), self.log.votes
            if index is None:
                order = ((start + step) % total for step in range(total))
                index = next((at for at in order if self.records[at].id not in votes), total)
            index = min(max(index, 0), total)
            voted = sum(record.id in votes for record in self.records)
            page: Row = {"at": index, "rows": total, "voted": voted, "by": self.log.by}
            if index == total:
                return page | {"summary": asdict(summarize(self.records, votes))}
            record = self.records[index]
            places, vote = placement(record, self.log.by), votes.get(record.id)
            return page | {
                "id": record.id,
                "prompt": as_messages(record.prompt),
                "answers": [record.responses[place] for place in places],
                "verdict": vote and vote.verdict,
                "ranks": None if vote is None or vote.ranks is None else [vote.ranks[place] for place in places],
            }

    def vote(self, message: object) -> Row:
        """Take a vote that the page sent, and return the next page.

        Raises:
            ValueError: The vote is not valid; the message says why.
            OSError: The vote could not be written.
        """
        index = self._index.get(str(message.get("id"))) if isinstance(message, dict) else None
        if index is None or not isinstance(message, dict):
            raise ValueError("id: no such row")
        record = self.records[index]
        vote = parse_vote(placement(record, self.log.by), message.get("verdict"), message.get("ranks"))
        with self._lock:
            self.log.append(record, vote)
        return self.page(start=index + 1)


class Server(ThreadingHTTPServer):
    """Serves a review on the loopback address.

    Args:
        review: The review.
        port: The port; 0 for any free one.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int) -> None:
        self.review, self.token = review, secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.cookie = f"review-{self.server_port}"
        """The name of the cookie. Cookies are shared by all ports of a host."""
        self.link = f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"

    def is_token(self, text: str) -> bool:
        """Whether a text is our token, in constant time."""
        return secrets.compare_digest(text.encode(errors="surrogateescape"), self.token.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a browser that closed its connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "datagen", ""
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if not self._is_ours():
            return
        if url.path == "/" and "token" in query:
            if self.server.is_token(query["token"]):  # exchanged for a cookie, which keeps it out of the history
                cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
                self._send(303, headers={"Location": "/", "Set-Cookie": cookie})
            else:
                self._send(403, "wrong token: open the link that 'datagen review' printed last")
        elif url.path == "/favicon.ico":
            self._send(204)
        elif not self._has_cookie():
            self._send(403, NO_COOKIE)
        elif url.path in FILES:
            name, content_type = FILES[url.path]
            self._send(200, (PAGES / name).read_text(encoding="utf-8"), content_type)
        elif url.path == "/page":
            index = query.get("at", "")
            page = self.server.review.page(int(index) if index.isascii() and index.isdigit() else None)
            self._send(200, json.dumps(page), JSON)
        else:
            self._send(404, "no such page")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_VOTE_BYTES:
            self._send(413, f"a vote has a length, of at most {MAX_VOTE_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        if not self._has_cookie():
            self._send(403, NO_COOKIE)
        elif self.path != "/vote" or self.headers.get_content_type() != JSON:
            self._send(404, "votes go to /vote as JSON")
        else:
            try:
                page = self.server.review.vote(json.loads(body))
            except (ValueError, RecursionError) as problem:
                self._send(400, str(problem))
            except OSError as problem:
                self._send(507, f"the vote was not saved: {problem.strerror}")
            else:
                self._send(200, json.dumps(page), JSON)

    def _is_ours(self) -> bool:
        """Whether the request is for us, and from our own page or typed by the reader; if not, refuse it."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.hosts:
            self._send(421, "this page answers under its own address only")
        elif origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            self._send(403, "sent by another page")
        else:
            return True
        return False

    def _has_cookie(self) -> bool:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return cookie is not None and self.server.is_token(cookie.value)

    def _send(self, status: int, text: str = "", content_type: str = PLAIN, headers: Row | None = None) -> None:
        """Send a response. With an error status (400 and up) the text is the reason, in a line of its own."""
        if status >= 400:
            self.close_connection = True  # the rest of the request stays unread
            text += "\n"
        body = text.encode()
        self.send_response(status)
        length = {} if status == 204 else {"Content-Type": content_type, "Content-Length": str(len(body))}
        for name, value in (HEADERS | length | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a request line holds the token."""
