"""A hub on this machine that takes uploads, as far as `huggingface_hub` asks for it, with faults."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_goodgoodgoodgood"
LFS_ENDINGS = (".parquet", ".safetensors", ".sqlite3")


@dataclass
class Repository:
    """A repository, and what is in it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@dataclass
class Store:
    """What the hub holds, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    """By type and name, as in datasets/me/set."""
    large: dict[str, bytes] = field(default_factory=dict)
    """By SHA-256."""
    requests: list[str] = field(default_factory=list)
    puts: int = 0
    makes_public: bool = False
    """Whether a repository becomes public, whatever was asked."""
    fault: Callable[[str], int | None] = lambda request: None
    """Method and path to a status, 0 for a connection that is cut, or None."""
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a client that uploads."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, format: str, *args: object) -> None: ...

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_request(self) -> None:
        path = self.path.partition("?")[0]
        request = f"{self.command} {path}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.store.requests.append(request)
        status = self.store.fault(request)
        if status == 0:
            self.close_connection = True
            self.connection.close()
        elif status:
            self.answer({"error": "injected"}, status)
        elif path.startswith("/lfs/"):
            self.store.large[path.removeprefix("/lfs/")] = body
            self.store.puts += 1
            self.answer({})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials"}, 401)
        else:
            self.route(path, body)

    def route(self, path: str, body: bytes) -> None:
        repositories = self.store.repositories
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.answer({"objects": [self.lfs_action(one) for one in json.loads(body)["objects"]]})
        name, _, action = path.removeprefix("/api/").removesuffix("/revision/main").partition("/preupload/")
        if not action:
            name, _, action = name.partition("/commit/")
        repository = repositories.get(name)
        if repository is None:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return self.answer({"files": [self.mode(repository, one["path"]) for one in files]})
        if action:
            return self.commit(name, repository, body)
        sha = sha1(str(repository.commits).encode()).hexdigest()
        return self.answer({"id": name.partition("/")[2], "private": repository.private, "sha": sha, "siblings": []})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('type', 'model')}s/{wanted['organization']}/{wanted['name']}"
        if name in self.store.repositories:
            return self.answer({"error": "You already created this repo"}, 409)
        private = wanted.get("visibility") == "private" and not self.store.makes_public
        self.store.repositories[name] = Repository(private)
        return self.answer({"url": f"{self.store.url}/{name}"})

    def lfs_action(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.store.large:
            return one
        return one | {"actions": {"upload": {"href": f"{self.store.url}/lfs/{one['oid']}"}}}

    def mode(self, repository: Repository, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(LFS_ENDINGS) else "regular"
        content = repository.files.get(path)
        oid = None
        if content is not None:
            git = b"blob %d\0%b" % (len(content), content)
            oid = sha256(content).hexdigest() if mode == "lfs" else sha1(git).hexdigest()
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def commit(self, name: str, repository: Repository, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.store.large[value["oid"]]
        repository.commits += 1
        place = name.removeprefix("models/")
        url = f"{self.store.url}/{place}/commit/{'c' * 40}"
        self.answer({"commitUrl": url, "commitOid": "c" * 40, "hookOutput": ""})

    do_GET = do_POST = do_PUT = handle_request  # noqa: N815


@contextmanager
def uploads() -> Iterator[Store]:
    """Give a hub that holds nothing yet."""
    store = Store()
    handler = type("StoreHandler", (Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        store.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield store
        server.shutdown()
