"""A server that answers every request with given bytes, to see what a client makes of what is no HTTP."""

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET

Pieces = Iterable[bytes | float]
"""What is sent, piece by piece; a number is a pause in seconds."""
RESET = -1.0
"""Instead of a pause: close with an RST."""


@dataclass
class Wire:
    """A running server."""

    answer: Callable[[bytes], Pieces]
    """From the body of a request to what is sent."""
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    """The first lines and headers of all requests."""


class Handler(socketserver.StreamRequestHandler):
    """Reads one request of a connection, answers and closes."""

    wire: Wire

    def handle(self) -> None:
        with suppress(OSError):
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            lines = [line.partition(b":") for line in head.lower().splitlines()]
            length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
            body = self.rfile.read(length)
            self.wire.requests.append(head)
            for piece in self.wire.answer(body):
                if isinstance(piece, bytes):
                    self.wfile.write(piece)
                elif piece == RESET:
                    self.connection.setsockopt(SOL_SOCKET, SO_LINGER, b"\1" + bytes(7))
                    self.connection.close()
                else:
                    time.sleep(piece)


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """A client that has left is no news."""


@contextmanager
def wire(answer: Callable[[bytes], Pieces]) -> Iterator[Wire]:
    """Run a server on a port of its own."""
    running = Wire(answer)
    with listening(Handler, wire=running) as port:
        running.url = f"http://127.0.0.1:{port}/v1"
        yield running


@contextmanager
def listening(handler: type[socketserver.StreamRequestHandler], **attributes: object) -> Iterator[int]:
    """Serve with a handler that has these attributes, on a port of its own, which is the value."""
    with Threads(("127.0.0.1", 0), type("Bound", (handler,), attributes)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def completion(text: str = "Yes.", **usage: object) -> bytes:
    """The body of an answer."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage or {"prompt_tokens": 1, "completion_tokens": 1}}).encode()


def http(status: int, body: bytes, *headers: str) -> bytes:
    """Frame a body."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
