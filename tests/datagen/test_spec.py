"""Model specs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.llm.sim import VERSION
from datagen.llm.sim.model import parse_sim
from datagen.llm.spec import OPENAI_URL, Spec, is_loopback, parse_spec

LOCAL = "http://127.0.0.1:11434/v1"
KEY = "sk-not-a-real-key-7f3a"
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("gpt-4o-mini", Spec("gpt-4o-mini", "gpt-4o-mini", (OPENAI_URL,))),
        (f"qwen3:8b@{LOCAL}", Spec("qwen3:8b", "qwen3:8b", (LOCAL,))),
        (f"qwen3:8b@{LOCAL}/", Spec("qwen3:8b", "qwen3:8b", (LOCAL,))),
        (f"m#2026-11@{LOCAL}", Spec("m#2026-11", "m", (LOCAL,))),
        ("m#old", Spec("m#old", "m", (OPENAI_URL,))),
        (f"org/model@main@{LOCAL}", Spec("org/model@main", "org/model@main", (LOCAL,))),
        ("org/model@main", Spec("org/model@main", "org/model@main", (OPENAI_URL,))),
        ("m@https://[::1]:8000/v1", Spec("m", "m", ("https://[::1]:8000/v1",))),
        ("m@HTTPS://example.com", Spec("m", "m", ("HTTPS://example.com",))),
        ("sim", Spec(f"sim/{VERSION}", "sim")),
        ("sim:leak=0.5,noop=0.1", Spec(f"sim:leak=0.5,noop=0.1/{VERSION}", "sim:leak=0.5,noop=0.1")),
        ("simple", Spec("simple", "simple", (OPENAI_URL,))),
        (f"sim@{LOCAL}", Spec("sim", "sim", (LOCAL,))),
        ("claude-3-5-sonnet@20240620", Spec("claude-3-5-sonnet@20240620", "claude-3-5-sonnet@20240620", (OPENAI_URL,))),
        ("m@v1.5", Spec("m@v1.5", "m@v1.5", (OPENAI_URL,))),
        ("org/m@release/v1", Spec("org/m@release/v1", "org/m@release/v1", (OPENAI_URL,))),
    ],
)
def test_every_form(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("qwen3:8b@127.0.0.1:11434/v1", LOCAL),
        ("qwen3:8b@localhost/v1", "http://localhost/v1"),
        ("qwen3:8b@10.0.0.7/v1", "http://10.0.0.7/v1"),
        ("qwen3:8b@gpu-box:8000/v1", "http://gpu-box:8000/v1"),
        ("qwen3:8b@[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("qwen3:8b@api.example.com/v1", "https://api.example.com/v1"),
        ("qwen3:8b@api.example.com:443/v1", "https://api.example.com:443/v1"),
        ("qwen3:8b@8.8.8.8/v1", "https://8.8.8.8/v1"),
    ],
)
def test_a_missing_scheme_is_guessed_and_said(text: str, url: str) -> None:
    spec = parse_spec(text)
    assert (spec.name, spec.urls) == ("qwen3:8b", (url,))
    assert spec.note == f"Taking {url} as the address of qwen3:8b."


def model_in(folder: str, weights: bytes = b"weights") -> str:
    Path(folder).mkdir(parents=True)
    (Path(folder) / "config.json").write_text("{}")
    (Path(folder) / "model.safetensors").write_bytes(weights)
    return f"hf:{folder}"


def test_a_folder_is_named_by_what_is_in_it() -> None:
    one, same, other = (parse_spec(model_in(f"{n}/policy", w)) for n, w in (("a", b"x"), ("b", b"x"), ("c", b"y")))
    assert one.identity == same.identity != other.identity
    assert one.identity.startswith("hf:policy/")
    assert (one.name, one.urls) == ("hf:a/policy", ())


def test_recorded_replies_are_named_by_their_bytes() -> None:
    Path("a.jsonl").write_text("one\n")
    before = parse_spec("replay:a.jsonl")
    Path("a.jsonl").write_text("two\n")
    assert (before.name, before.urls) == ("replay:a.jsonl", ())
    assert before.identity != parse_spec("replay:a.jsonl").identity
    assert before.identity.startswith("replay:a.jsonl/")


def test_a_base_url_from_the_environment_is_where_a_bare_name_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", LOCAL + "/")
    assert parse_spec("m") == Spec("m", "m", (LOCAL,))
    assert parse_spec("m@https://example.com/v1").urls == ("https://example.com/v1",)
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert parse_spec("m").urls == (OPENAI_URL,)
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:11434")
    with pytest.raises(InputError, match=r"^OPENAI_BASE_URL: expected an address"):
        parse_spec("m")


@pytest.mark.parametrize(
    "text",
    ["", "#tag", f"@{LOCAL}", f"#tag@{LOCAL}", "m@http://", "m@http:///v1", "m@ftp://example.com", "m@file:///etc/passwd",
     "http://127.0.0.1:8000/v1", "m@http://[::1", "m@http://example.com:port/v1", "m@http://example.com:99999/v1",
     "m@http://example.com/v1#part"],
)  # fmt: skip
def test_an_invalid_spec_is_an_error_that_shows_a_valid_one(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_spec(text)
    assert str(raised.value) == (
        f"model {text!r}: expected NAME[#tag][@URL], such as qwen3:8b@http://127.0.0.1:11434/v1"
    )


@pytest.mark.parametrize("text", ["hf:", "hf:nowhere", "sim:nonsense=1", "sim:leak", "sim:leak=2"])
def test_an_unknown_folder_or_fault_is_an_error(text: str) -> None:

    with pytest.raises(InputError, match=r"^model "):
        parse_sim(parse_spec(text).name)


@pytest.mark.parametrize(
    "url",
    [f"https://me:{SECRET}@example.com/v1", f"https://{SECRET}@example.com/v1", f"https://example.com/v1?key={SECRET}"],
)
@pytest.mark.parametrize("form", ["m@{}", "{}", "m#a@{}"])
def test_a_secret_in_a_url_is_refused_and_not_shown(form: str, url: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_spec(form.format(url))
    assert SECRET not in str(raised.value)
    if form != "{}":
        assert "a key comes from the environment" in str(raised.value)


def test_a_secret_in_the_base_url_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://me:{SECRET}@example.com/v1")
    with pytest.raises(InputError) as raised:
        parse_spec("m")
    assert SECRET not in str(raised.value)


@given(st.text(st.characters(exclude_characters="@#", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_any_name_without_signs_of_its_own_is_the_name(name: str) -> None:
    if name != "sim" and not name.startswith(("sim:", "hf:", "replay:")) and "://" not in name:
        assert parse_spec(f"{name}#t@{LOCAL}") == Spec(f"{name}#t", name, (LOCAL,))


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        (LOCAL, True), ("http://localhost:8000", True), ("http://LOCALHOST", True), ("http://[::1]:80/v1", True),
        ("http://127.8.9.1", True), ("http://127.example.com", False), ("http://127.0.0.1.example.com", False),
        ("http://localhost.example.com", False), ("http://10.0.0.1", False), ("http://[::2]", False),
        ("http://example.com/localhost", False), ("https://example.com", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_this_machine_is_recognised_by_address(url: str, is_here: bool) -> None:
    assert is_loopback(url) == is_here


def test_the_key_is_in_no_spec_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in repr(parse_spec(f"m@{LOCAL}"))
    with pytest.raises(InputError) as raised:
        parse_spec("m@ftp://example.com")
    assert KEY not in str(raised.value)
