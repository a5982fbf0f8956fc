"""The file models.toml: models with an address, a key and settings of their own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.llm.default import default_models
from datagen.llm.models_file import FIELDS, Access
from datagen.llm.spec import OPENAI_URL, Spec, parse_spec, with_tag
from datagen.records.record import Row
from tests.jobs import digest, respond, write_seeds
from tests.server import Server, running

URL = "http://127.0.0.1:8000/v1"
EVERYTHING = """
default = ["teacher", "m@http://127.0.0.1:9/v1"]
[models.teacher]
name = "org/deep#seek"
tag = "june"
url = ["http://127.0.0.1:8000/v1/", "http://127.0.0.1:8001/v1"]
key = "MY_KEY"
headers = {x-team = "research", x-gateway-key = "$GATEWAY_KEY"}
query = {api-version = "2026-01-01"}
price = {input = 0.3, output = 1, cached = 0.03}
limits = {concurrency = 4, requests_per_minute = 500}
params = {temperature = 0.6, chat_template_kwargs = {enable_thinking = false}}
"""
SECRET = "sk-not-a-real-key-7f3a"


def spec_of(table: str) -> Spec:
    """Return the spec of a model of models.toml, from the lines of its table."""
    Path("models.toml").write_text(f"[models.teacher]\n{table}\n")
    return parse_spec("teacher")


def test_a_model_with_everything() -> None:
    Path("models.toml").write_text(EVERYTHING)
    assert default_models() == ["teacher", "m@http://127.0.0.1:9/v1"]
    assert parse_spec("teacher") == Spec(
        "org/deep%23seek#june",
        "org/deep#seek",
        (URL, "http://127.0.0.1:8001/v1"),
        access=Access("MY_KEY", {"x-team": "research", "x-gateway-key": "$GATEWAY_KEY"}, {"api-version": "2026-01-01"}),
        params={"temperature": 0.6, "chat_template_kwargs": {"enable_thinking": False}},
        limits={"concurrency": 4, "requests_per_minute": 500},
        price={"input": 0.3, "output": 1, "cached": 0.03},
        alias="teacher",
    )
    assert parse_spec("m@http://127.0.0.1:9/v1") == Spec("m", "m", ("http://127.0.0.1:9/v1",))


def test_a_tag_behind_a_known_name_is_another_version_of_that_model() -> None:
    """An ablation asks every model anew for each seed: a name that is not known would go to another server."""
    Path("models.toml").write_text(EVERYTHING)
    tagged = parse_spec(with_tag("teacher", "3"))
    assert tagged == replace(parse_spec("teacher"), identity="org/deep%23seek#june-3")
    Path("mine.py").write_text("def answer(messages): return 'x'\n")
    plain, again = parse_spec("mine.py:answer"), parse_spec(with_tag("mine.py:answer", "3"))
    assert (again.name, again.identity) == (plain.name, f"{plain.identity}#3")


def test_the_example_of_the_page_can_be_read() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/models.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    Path("models.toml").write_text(example)
    assert [parse_spec(name).name for name in (*default_models(), "judge")] == ["deepseek-chat", "gpt-4o"]
    assert [key for key in FIELDS if f"| `{key}` |" not in page] == []


def test_a_model_needs_nothing_but_its_name() -> None:
    assert spec_of("") == Spec("teacher", "teacher", (OPENAI_URL,), alias="teacher")
    assert spec_of(f'url = "{URL}"') == Spec("teacher", "teacher", (URL,), alias="teacher")


def test_a_name_that_is_not_in_the_file_is_said() -> None:
    spec_of("")
    assert parse_spec("techer").note == f"techer is not in models.toml: asking {OPENAI_URL} for it."
    assert parse_spec(f"techer@{URL}").note == parse_spec("sim").note == ""


@pytest.mark.parametrize("name", ["a#b", "a@b", "a/b@c#d", "hf:x", "sim", "replay:x", "模型", "a b"])
def test_a_model_may_have_any_name(name: str) -> None:
    names: list[str] = []

    def note(request: Row) -> None:
        names.append(request["model"])

    with running(Server(refuse=note)) as server:
        Path("models.toml").write_text(f'[models.teacher]\nname = "{name}"\nurl = "{server.url}"\n')
        assert respond(write_seeds(1), "teacher").result["status"] == "finished"
    assert set(names) == {name}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[models.teacher]\nmodel = 1", "[models.teacher]: unknown key model; expected name, tag, url, key, "),
        ("default = 1", "default is the name of a model, or a list of names"),
        ("modells = 1", "unknown key modells; expected default, models"),
        ("models = 1", "models: expected tables"),
        ("[models]\nteacher = 1", "[models.teacher]: expected a table with name, "),
        ('[models."a@b"]', "[models.a@b]: expected a name of letters"),
        ("[models.sim]", "[models.sim]: expected a name of letters"),
        ("[models.teacher", "cannot be read"),
        *(
            (f"[models.teacher]\n{line}", f"[models.teacher] {line.partition(' ')[0]}: expected ")
            for line in (
                "name = 1", 'name = ""', 'tag = "a@b"', "url = []", "url = [1]", 'url = "nonsense"', "key = 1",
                "headers = 1", 'headers = {"a b" = "c"}', 'headers = {a = "é"}', 'headers = {a = "b\\nc"}',
                "query = {a = 1}", "limits = {concurrency = 0}", "limits = {rpm = 1}", "limits = {concurrency = true}",
                "price = {input = -1}", "price = {input = 1}", "price = {input = inf, output = 1}",
                'price = {total = 1}', "params = {messages = []}",
                "params = {a = nan}", "params = {a = 1979-05-27}",
            )
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_said_with_what_is_expected(text: str, hint: str) -> None:
    Path("models.toml").write_text(text)
    with pytest.raises(InputError) as raised:
        parse_spec("teacher")
    assert str(raised.value).startswith("models.toml: ") and hint in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        f'key = "{SECRET}"', 'key = "hf_abcdefgh12345678"', f'headers = {{x-thing = "{SECRET}"}}',
        'headers = {authorization = "abc"}', 'headers = {api-key = "abc"}', 'headers = {x = "Bearer abc"}',
        'headers = {x-api-key = "$abc"}', 'query = {api_key = "abc"}', f'query = {{x = "{SECRET}"}}',
        f'params = {{x = "{SECRET}"}}', 'url = "https://me:abc@example.com/v1"', 'url = "https://example.com/?key=abc"',
    ],
)  # fmt: skip
def test_a_key_in_the_file_is_refused_and_not_shown(line: str) -> None:
    with pytest.raises(InputError) as raised:
        spec_of(line)
    assert not any(secret in str(raised.value) for secret in (SECRET, "abc"))
    assert any(way in str(raised.value) for way in ("environment", "variable"))


def test_parameters_of_a_model_are_sent_recorded_and_overridden_by_the_users() -> None:
    requests: list[Row] = []

    def note(request: Row) -> None:
        requests.append(request)

    with running(Server(refuse=note)) as server:
        table = f'[models.teacher]\nname = "m"\nurl = "{server.url}"\n'
        for params in ('{temperature = 0.1, reasoning_effort = "low"}', "{temperature = 0.1}"):
            Path("models.toml").write_text(f"{table}params = {params}\n")
            for temperature in (None, 0.9):
                respond(write_seeds(1), "teacher", f"{len(requests)}.jsonl", temperature=temperature)
                respond(write_seeds(1), "teacher", "again.jsonl", temperature=temperature, overwrite=True)
    sent = [(request["temperature"], request.get("reasoning_effort")) for request in requests]
    assert sent == [(0.1, "low"), (0.9, "low"), (0.1, None), (0.9, None)]


def test_parameters_of_a_model_are_part_of_the_fingerprint() -> None:
    with running(Server()) as server:
        Path("models.toml").write_text(f"[models.teacher]\nurl = '{server.url}'\nparams = {{top_k = 5}}\n")
        outcome = respond(write_seeds(1), ["teacher", f"m@{server.url}"])
    assert outcome.result["fingerprint"]["params of teacher"] == [{"top_k": 5}, {}]


def test_the_journal_knows_the_name_and_not_the_place() -> None:
    with running(Server()) as one, running(Server()) as two:
        respond(write_seeds(4), f"m@{one.url}")
        Path("models.toml").write_text(f'[models.teacher]\nname = "m"\nurl = "{two.url}"\nheaders = {{x-a = "b"}}\n')
        respond(write_seeds(4), "teacher", "again.jsonl")
        assert (one.requests, two.requests) == (4, 0)
        assert digest("out.jsonl") == digest("again.jsonl")


def test_one_name_at_two_places_is_refused_with_the_way_out() -> None:
    Path("models.toml").write_text(f'[models.a]\nname = "m"\nurl = "{URL}"\nheaders = {{x-a = "b"}}\n')
    for other, what in ((f"m@{URL}", "two keys, headers or queries"), ("m@http://127.0.0.1:9/v1", "two addresses")):
        with pytest.raises(InputError, match=rf"^model m has {what}; give each a tag: m#a@URL .*: m@URL,URL$"):
            respond(write_seeds(1), ["a", other])


def test_the_limit_of_a_model_holds_at_its_address_only() -> None:
    with running(Server(latency=0.02)) as slow, running(Server(latency=0.02)) as fast:
        Path("models.toml").write_text(f"[models.a]\nurl = '{slow.url}'\nlimits = {{concurrency = 2}}\n")
        respond(write_seeds(40), ["a", f"m@{fast.url}"], concurrency="8")
    assert slow.peak == 2 and fast.peak > 2
