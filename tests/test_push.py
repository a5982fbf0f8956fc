"""`datagen push`: what is uploaded, who sees it, and what happens when the hub refuses, fails, or is cut off."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.publish.listing import upload_of
from tests.jobs import write_seeds
from tests.test_pack import datagen, succeed
from tests.upload_server import TOKEN, Repository, Store, uploads

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""What the hub's library does in its own code."""
CONFIG = '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'


@pytest.fixture
def store() -> Iterator[Store]:
    with uploads() as store:
        yield store


@pytest.fixture
def packed() -> None:
    """A data set in ds, with a journal."""
    write_seeds(3)
    succeed("evolve seeds.jsonl --rounds 1 --model sim -o rows.jsonl -q", "pack rows.jsonl --journal -o ds -q")


def model(name: str = "out", card: str = "---\ntags:\n- datagen\n---\n# out\n") -> Path:
    """Write the folder of a trained model, with what a run leaves beside it."""
    folder = Path(name)
    for path, text in {
        "config.json": CONFIG, "model.safetensors": "weights", "tokenizer.json": "{}", "README.md": card,
        "run/config.json": f'{{"command": "train sft", "model": "{Path().resolve()}/base"}}', "run/report.json": "{}",
        "run/curves.svg": "<svg/>", "run/metrics.jsonl": "", "notes.txt": "mine", ".git/config": "mine",
        "checkpoints/checkpoint-1/model.safetensors": "old",
    }.items():  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def push(store: Store, *words: str, token: str = TOKEN, endpoint: str = "") -> tuple[int, str]:
    """Run the command with a token; return its exit code and what it has printed."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests before this one need it, and it is read once
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not played
        patch.setenv("HF_ENDPOINT", endpoint or store.url)
        patch.setenv("HF_TOKEN", token)
        ran = datagen(shlex.join(["push", *words]))
    assert not token or token not in ran.output
    return ran.exit_code, ran.output


def contents(folder: str) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_data_set_arrives_whole_and_private(packed: None, store: Store) -> None:
    code, output = push(store, "ds", "me/set")
    assert code == 0 and "(private)" in output and f"{store.url}/datasets/me/set" in output, output
    repository = store.repositories["datasets/me/set"]
    assert repository.private and repository.commits == 1
    assert repository.files == contents("ds") and "replay/.datagen/journal.sqlite3" in repository.files
    assert push(store, "ds", "me/set", "-q") == (0, "")
    assert store.puts == len([name for name in repository.files if name.endswith((".parquet", ".sqlite3"))])


def test_outputs_are_packed_first(packed: None, store: Store) -> None:
    code, output = push(store, "rows.jsonl", "me/rows", "--license", "mit", "-q")
    assert (code, output) == (0, "")
    files = store.repositories["datasets/me/rows"].files
    assert set(files) == {"README.md", "data/rows.parquet"}
    assert b"license: mit" in files["README.md"] and b"# rows\n" in files["README.md"]


def test_a_dry_run_shows_the_files_and_asks_nobody(packed: None, store: Store) -> None:
    code, output = push(store, "ds", "me/set", "--dry-run", token="")
    assert code == 0 and store.requests == []
    for text in ("4 files, ", "data/rows.parquet", "config_name: rows", "Nothing was sent."):
        assert text in output, output


def test_of_a_model_only_the_model_arrives(store: Store) -> None:
    model()
    code, output = push(store, "out", "me/model")
    assert code == 0, output
    expected = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "run/curves.svg"}
    assert set(store.repositories["models/me/model"].files) == expected
    assert store.repositories["models/me/model"].private


def test_public_needs_a_yes(packed: None, store: Store) -> None:
    code, output = push(store, "ds", "me/set", "--public")
    assert code == 2 and "confirm with --yes" in output and not store.repositories
    code, output = push(store, "ds", "me/set", "--public", "--yes")
    assert code == 0 and "PUBLIC: everybody sees it" in output
    assert not store.repositories["datasets/me/set"].private


def test_a_public_repository_gets_nothing_unless_that_is_said(packed: None, store: Store) -> None:
    store.repositories["datasets/me/set"] = Repository(private=False)
    code, output = push(store, "ds", "me/set", "-q")
    assert code == 2 and "exists and is public" in output and output.count("\n") == 1
    assert not [request for request in store.requests if "preupload" in request]
    assert push(store, "ds", "me/set", "--public", "--yes", "-q")[0] == 0

    store.repositories["datasets/me/other"] = Repository(private=True)
    code, output = push(store, "ds", "me/other", "--public", "--yes", "-q")
    assert code == 2 and "exists and is private" in output

    store.makes_public = True
    code, output = push(store, "ds", "me/third", "-q")
    assert code == 2 and "has made it public" in output and not store.repositories["datasets/me/third"].files


def test_a_refused_token_and_a_repository_made_meanwhile_end_with_one_line(packed: None, store: Store) -> None:
    code, output = push(store, "ds", "me/set", "-q", token="hf_badbadbadbadbad")
    assert code == 5 and "the hub refuses HF_TOKEN (HTTP 401)" in output and output.count("\n") == 1, output
    code, output = push(store, "ds", "me/set", "-q", token="")
    assert code == 2 and "HF_TOKEN is not set" in output
    code, output = push(store, "ds", "me/set", "-q", endpoint="http://hub.example")
    assert code == 2 and "use https" in output
    store.fault = lambda request: 409 if request == "POST /api/repos/create" else None
    code, output = push(store, "ds", "me/set", "-q")
    assert code == 1 and "by somebody else meanwhile" in output and output.count("\n") == 1, output


@pytest.mark.parametrize(
    ("where", "status"),
    [("POST /api/datasets/me/set/commit/main", 500), ("POST /api/datasets/me/set/commit/main", 0), ("PUT /lfs/", 403)],
)
def test_after_a_fault_the_same_command_completes(packed: None, store: Store, where: str, status: int) -> None:
    """A hub that fails, one that is cut off, and one that takes only the first of two large files."""
    store.fault = lambda request: status if request.startswith(where) and (status != 403 or store.puts) else None
    code, output = push(store, "ds", "me/set", "-q")
    assert code == 5 and output.startswith("error: me/set: ") and output.count("\n") == 1, output
    assert store.repositories["datasets/me/set"].files == {}
    arrived, store.fault = store.puts, lambda request: None
    assert arrived == (1 if status == 403 else 2)
    assert push(store, "ds", "me/set", "-q") == (0, "")
    assert store.repositories["datasets/me/set"].files == contents("ds")
    assert store.puts == 2  # what had arrived was not sent again


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("push ds set", "OWNER/NAME"),
        ("push missing me/set", "no such folder"),
        ("push ds rows.jsonl me/set", "uploaded alone"),
        ("push empty me/set", "holds no model"),
        ("push half me/set", "its training has not ended"),
        ("push bare me/set", "has no README.md"),
        ("push adapter me/set", "nobody else could load it"),
        ("push linked me/set", "is a link"),
        ("push home me/set", "a folder of this machine"),
    ],
)
def test_mistakes_end_with_one_line(packed: None, line: str, says: str) -> None:
    Path("empty").mkdir()
    (model("half") / "run/report.json").unlink()
    (model("bare") / "README.md").unlink()
    (model("adapter") / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(Path("out").resolve())})
    )
    (model("home") / "tokenizer_config.json").write_text(json.dumps({"name": str(Path("out").resolve())}))
    Path("ds").rename("linked")
    succeed("pack rows.jsonl -o ds -q")
    Path("linked/data/more.parquet").symlink_to("/etc/hostname")
    ran = datagen(f"{line} --dry-run")
    assert ran.exit_code == 2 and says in ran.output and ran.output.count("\n") == 1, ran.output


def test_a_key_in_a_file_is_not_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-proj-0123456789abcdefghij"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match=r"README\.md holds a key of the environment"):
        upload_of(model(card=f"---\ntags: []\n---\nMade with {key}\n"))
