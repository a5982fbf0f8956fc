"""A hub on this machine: one data set of files, as far as `datasets` asks for it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

COMMIT = "a" * 40
NAME = "me/set"


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve the files of the data set me/set; give the address of the hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def entries(self, names: list[str]) -> bytes:
            kind = {"type": "file", "oid": "b" * 40}
            return json.dumps([kind | {"path": name, "size": len(files[name])} for name in names]).encode()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            self.answer(self.entries([path for path in paths if path in files]))

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/datasets/{NAME}/tree/"):
                self.answer(self.entries(list(files)))
            elif path.startswith(f"/api/datasets/{NAME}"):
                siblings = [{"rfilename": name} for name in files]
                self.answer(json.dumps({"id": NAME, "sha": COMMIT, "tags": [], "siblings": siblings}).encode())
            elif (name := path.rpartition("/")[2]) in files and "/resolve/" in path:
                self.answer(files[name], ETag='"c"', X_Repo_Commit=COMMIT)
            else:
                self.answer(b"{}", 404, X_Error_Code="EntryNotFound")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
