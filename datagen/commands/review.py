"""`datagen review SAMPLES`: a page on this machine where people put answers in order, blind.

The answers of a row stand in a random order that is drawn from the row's id and the reviewer, and nothing on the page
says which model wrote them or what a judge made of them. Each vote is on disk before the next row is shown (votes.py);
`datagen judge --by human` reads the log.

The server is the standard library's: one reader, four routes. Only this machine can reach it, and only with the token
of the link: a Host header other than our own (DNS rebinding) and requests that another page sends are refused. What
models wrote goes to the page as JSON and becomes text nodes there, never markup; the policy allows nothing but our own
script and style.
"""

import json
import secrets
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from getpass import getuser
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from datagen.commands.terminal import columns, printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judge.review.summary import Summary, summarize
from datagen.judge.review.votes import Log, parse_vote, placement
from datagen.records.files import open_input
from datagen.records.ranked import SAMPLES
from datagen.records.reader import Reader
from datagen.records.record import BadLine, Record, Row, as_messages

ARGUMENTS = (("samples", "A file of samples, ranked rows or preferences."),)
PAGES = Path(__file__).parents[1] / "judge" / "review" / "pages"
FILES = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
}
JSON = "application/json"
LOOPBACK = "127.0.0.1"
LONGEST_VOTE = 1 << 16
"""Bytes of a request: a vote is an id and a few numbers."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Options:
    """What `datagen review` can be told."""

    by: str | None = option(None, "Who votes: the name that stands in the log. [the user's]")
    votes: Path | None = option(None, "The log of votes. [SAMPLES.votes.jsonl]")
    limit: int | None = option(None, "Show only the first so many rows.", least=1)
    strict: bool = option(False, "Stop at the first input line that cannot be used.")
    port: int = option(0, "Where the page is served on this machine; 0 is any free port.", least=0, most=65535)
    open: bool = option(False, "Open the page in the browser.")


class Review:
    """The rows that one person reviews, and where they are; safe to use from several threads."""

    def __init__(self, records: Sequence[Record], log: Log) -> None:
        self.records, self.log = records, log
        self._at = {record.id: at for at, record in enumerate(records)}
        self._lock = Lock()

    def first_open(self, start: int = 0) -> int:
        """Return the next row without a vote, from a row on and round; the number of rows if there is none."""
        total = len(self.records)
        turn = ((start + step) % total for step in range(total))
        return next((at for at in turn if self.records[at].id not in self.log.votes), total)

    def page(self, at: int | None = None) -> Row:
        """Return what the page shows: a row, or the summary where all are done."""
        with self._lock:
            at = self.first_open() if at is None else min(max(at, 0), len(self.records))
            voted = sum(record.id in self.log.votes for record in self.records)
            about: Row = {"at": at, "rows": len(self.records), "voted": voted, "by": self.log.by}
            return about | (self._ballot(at) if at < len(self.records) else {"summary": self.summary().as_dict()})

    def _ballot(self, at: int) -> Row:
        record = self.records[at]
        places, vote = placement(record, self.log.by), self.log.votes.get(record.id)
        ranks = None if vote is None or vote.ranks is None else [vote.ranks[place] for place in places]
        return {
            "id": record.id,
            "prompt": as_messages(record.prompt),
            "answers": [record.responses[place] for place in places],
            "verdict": vote and vote.verdict,
            "ranks": ranks,
        }

    def vote(self, sent: object) -> Row:
        """Take a vote, and return the next page; ValueError says what is wrong with it."""
        at = self._at.get(str(sent.get("id"))) if isinstance(sent, dict) else None
        if at is None or not isinstance(sent, dict):
            raise ValueError("id: no such row")
        record = self.records[at]
        vote = parse_vote(placement(record, self.log.by), sent.get("verdict"), sent.get("ranks"))
        with self._lock:
            self.log.append(record, vote)
            after = self.first_open(at + 1)
        return self.page(after)

    def summary(self) -> Summary:
        return summarize(self.records, self.log.votes)


class Server(ThreadingHTTPServer):
    """Serves a review on the loopback address."""

    daemon_threads = True

    def __init__(self, review: Review, port: int) -> None:
        self.review, self.token = review, secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.cookie = f"review-{self.server_port}"
        """Cookies are shared by all ports of a host."""

    @property
    def link(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"

    def is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(errors="surrogateescape"), self.token.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that left in the middle."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "datagen", ""
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if not self._is_ours():
            return
        if url.path == "/" and "token" in asked:
            self._enter(asked["token"])
        elif url.path == "/favicon.ico":
            self._send(204)
        elif not self._has_cookie():
            self._refuse(403, "open the link that 'datagen review' printed")
        elif url.path in FILES:
            name, kind = FILES[url.path]
            self._send(200, (PAGES / name).read_bytes(), kind)
        elif url.path == "/page":
            at = asked.get("at", "")
            self._send_row(self.server.review.page(int(at) if at.isascii() and at.isdigit() else None))
        else:
            self._refuse(404, "no such page")

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > LONGEST_VOTE:
            self._refuse(413, "a vote has a length, and a small one")
            return
        body = self.rfile.read(int(length))
        if not self._has_cookie():
            self._refuse(403, "open the link that 'datagen review' printed")
        elif self.path != "/vote" or self.headers.get_content_type() != JSON:
            self._refuse(404, "votes go to /vote as JSON")
        else:
            self._vote(body)

    def _vote(self, body: bytes) -> None:
        try:
            page = self.server.review.vote(json.loads(body))
        except (ValueError, RecursionError) as problem:
            self._refuse(400, str(problem))
        except OSError as problem:
            self._refuse(507, f"the vote was not kept: {problem.strerror}")
        else:
            self._send_row(page)

    def _is_ours(self) -> bool:
        """Is the request for us and from our own page (or typed by the reader)? If not, refuse it."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.hosts:
            self._refuse(421, "this page answers under its own address only")
        elif origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            self._refuse(403, "sent by another page")
        else:
            return True
        return False

    def _enter(self, token: str) -> None:
        """Change the token of the link for a cookie, so that it stays out of the history."""
        if not self.server.is_token(token):
            self._refuse(403, "wrong token: open the link that 'datagen review' printed last")
            return
        cookie = f"{self.server.cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
        self._send(303, more={"Location": "/", "Set-Cookie": cookie})

    def _has_cookie(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return found is not None and self.server.is_token(found.value)

    def _send_row(self, row: Row) -> None:
        self._send(200, json.dumps(row).encode(), JSON)

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(status, f"{why}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes = b"", kind: str = "text/plain", more: Row | None = None) -> None:
        self.send_response(status)
        length = {} if status == 204 else {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in (HEADERS | length | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the token stands in a request line."""


def read_samples(name: str, options: Options) -> Iterator[Record]:
    """Yield the rows with answers to compare; say on stderr what was left out."""
    few = bad = shown_rows = 0
    with open_input(name) as file:
        for item in Reader(name, file, SAMPLES).read():
            if isinstance(item, BadLine):
                bad += 1
                report(item, options.strict)
            elif len(item.responses) < 2:
                few += 1
            elif options.limit is None or shown_rows < options.limit:
                shown_rows += 1
                yield item
    for count, what in ((bad, "lines cannot be used"), (few, "rows hold fewer than two answers")):
        if count:
            print(f"{printable(name)}: {count} {what}, left out", file=sys.stderr)


def report(line: BadLine, strict: bool) -> None:
    """Name a line that cannot be used; with --strict that ends the command."""
    if strict:
        raise InputError(str(line))
    print(printable(line), file=sys.stderr)


def summary_lines(summary: Summary) -> list[str]:
    """Write a summary as columns for the terminal."""
    cells = [["rows", str(summary.rows)], ["votes", str(summary.votes)]]
    cells += [[name.replace("_", " "), str(count)] for name, count in summary.verdicts.items()]
    if summary.pairs:
        cells.append(["pairs compared with the judge", str(summary.pairs)])
        told = {"agreement": summary.agreement, "agreement without ties": summary.agreement_decided}
        cells += [[name, "-" if value is None else f"{value:.1%}"] for name, value in told.items()]
        cells.append(["Cohen's kappa", "-" if summary.kappa is None else f"{summary.kappa:.3f}"])
    return columns(cells)


def run(samples: str, options: Options) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if samples == "-" and options.votes is None:
        raise InputError("samples from standard input need --votes FILE, the log")
    records = list(read_samples(samples, options))
    if not records:
        raise InputError(f"{samples}: no row with two answers to compare. Make them with 'datagen respond -k 4'")
    path = options.votes or Path(f"{Path(samples).stem}.votes.jsonl")
    log = Log(path, options.by or getuser(), records)
    if log.cut:
        print(f"{printable(path)}: took away {log.cut} bytes of a vote that was cut off", file=sys.stderr)
    review = Review(records, log)
    try:
        serve(review, options)
    finally:
        log.close()
    print("\n".join(summary_lines(review.summary())), file=sys.stderr)
    print(f"datagen judge {printable(samples)} --by human --votes {printable(path)}", file=sys.stderr)
    return 0


def serve(review: Review, options: Options) -> None:
    """Serve a review until Ctrl-C."""
    try:
        server = Server(review, options.port)
    except OSError as error:
        raise InputError(f"--port {options.port}: cannot be used: {error.strerror}") from error
    with server:
        print(
            f"review at {server.link}\nvotes go to {printable(review.log.path)}; Ctrl-C ends",
            file=sys.stderr,
            flush=True,
        )
        if options.open:
            webbrowser.open(server.link)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
