"""Names of models: a folder, the hub's cache, the hub itself (a real server that answers as the hub does)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from datagen.errors import InputError
from datagen.llm.local.hub import model_name, resolve_model
from datagen.llm.local.weights import weights_digest
from datagen.llm.spec import parse_spec

SHA = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights",
    "consolidated.safetensors": b"and again",
    "onnx/model.safetensors": b"and again",
    "1_Pooling/config.json": b"{}",
    "README.md": b"# A model\n",
}
RESOLVE = (
    "import sys; from datagen.errors import InputError; from datagen.llm.local.hub import resolve_model\n"
    "try: print(resolve_model(sys.argv[1]))\nexcept InputError as error: print(error)\n"
)


class Hub(BaseHTTPRequestHandler):
    """The hub with one model, one that is closed, and nothing else."""

    requests: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.requests.append(self.path)
        repository, _, file = self.path.partition(f"/resolve/{SHA}/")
        if self.path.startswith("/api/models/org/open/tree/"):
            self.answer([{"type": "file", "path": name, "size": len(FILES[name]), "oid": name} for name in FILES])
        elif self.path.startswith("/api/models/org/open"):
            self.answer({"id": "org/open", "sha": SHA, "siblings": [{"rfilename": name} for name in FILES]})
        elif self.path.startswith("/api/models/org/pickled"):
            names = ("config.json", "pytorch_model.bin")
            self.answer({"id": "org/pickled", "sha": SHA, "siblings": [{"rfilename": name} for name in names]})
        elif self.path.startswith("/api/models/org/closed"):
            self.answer({"error": "closed"}, 403, headers={"X-Error-Code": "GatedRepo"})
        elif repository == "/org/open":
            self.answer(FILES[file], headers={"X-Repo-Commit": SHA, "ETag": f'"{file}"'})
        else:
            self.answer({"error": "not found"}, 404, headers={"X-Error-Code": "RepoNotFound"})

    def answer(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def running_hub() -> Iterator[tuple[str, list[str]]]:
    """Run the hub; yields its address, and the paths that are asked for."""
    Hub.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Hub.requests
    finally:
        server.shutdown()
        server.server_close()


def resolve(name: str, endpoint: str, **env: str) -> str:
    """Resolve a name in another process, since the hub's library reads its settings when it is imported."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings |= {"HF_ENDPOINT": endpoint, "HF_HOME": "hub", "HF_HUB_DISABLE_XET": "1", **env}
    settings["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", RESOLVE, name], capture_output=True, text=True, timeout=300, env=settings
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_model_of_the_hub_is_downloaded_once_and_found_without_the_hub_then() -> None:
    with running_hub() as (endpoint, requests):
        folder = Path(resolve("hf:org/open", endpoint))
        kept = ["1_Pooling/config.json", "config.json", "model.safetensors"]
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == kept
        assert model_name(folder) == "open"
        before = len(requests)
        assert resolve("org/open", endpoint) == str(folder)
        assert len(requests) == before
    assert resolve("org/open", "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == str(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/closed", "its authors ask for consent: accept the terms on its page of the hub, then run: hf auth login"),
        ("org/none", "no folder here, and no model of the Hugging Face hub. If it is private, run: hf auth login"),
        (
            "org/pickled",
            "its weights are pickles (pytorch_model.bin), which can run code when they are read, and are not. Use a "
            "copy in safetensors; https://huggingface.co/spaces/safetensors/convert makes one",
        ),
        ("none", "no folder here, and no model of the Hugging Face hub. If it is private, run: hf auth login"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(name: str, says: str) -> None:
    with running_hub() as (endpoint, requests):
        assert resolve(name, endpoint) == f"model {name}: {says}"
        assert sum(path.startswith("/api/models/") for path in requests) == 1


def test_a_hub_that_cannot_be_reached_is_asked_once() -> None:
    says = resolve("org/open", "http://127.0.0.1:9")
    assert says.startswith("model org/open: no folder here, and the Hugging Face hub cannot be reached (")


@pytest.mark.parametrize("name", ["./rows.sfft", "rows.sfft", "hf:rows.sfts"])
def test_a_mistyped_folder_is_never_asked_of_the_hub(name: str) -> None:
    Path("rows.sft").mkdir()
    with pytest.raises(InputError, match=r"no such folder \(there is rows.sft\)$"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:", "model : no such folder"),
        ("/no/where", "model /no/where: no such folder"),
        ("~/none", "model ~/none: no such folder"),
        ("a/b/c", "model a/b/c: no such folder"),
        ("rows.jsonl", "model rows.jsonl: is a file; a model is a folder"),
        ("nowhere", "model nowhere: no folder here and not in the hub's cache; HF_HUB_OFFLINE forbids"),
    ],
)
def test_what_is_no_model_is_one_line_and_nothing_is_sent(name: str, says: str) -> None:
    Path("rows.jsonl").touch()
    with pytest.raises(InputError) as raised:
        resolve_model(name)
    assert str(raised.value).startswith(says)


def test_an_adapter_finds_its_base_by_the_same_rule() -> None:
    for folder in ("base", "adapter"):
        Path(folder).mkdir()
        Path(folder, "model.safetensors").write_bytes(folder.encode())
    Path("base/config.json").write_text("{}")
    Path("adapter/adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    before = parse_spec("hf:adapter").identity
    Path("base/model.safetensors").write_bytes(b"other")
    assert parse_spec("hf:adapter").identity != before
    Path("base").rename("basis")
    with pytest.raises(InputError, match=r"^adapter: the base of this adapter cannot be used: model base: no folder"):
        weights_digest(Path("adapter"))
