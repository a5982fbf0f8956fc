"""The form of an answer: servers that take a schema, refuse it in many words, or ignore it, give the same rows."""

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.llm.facts import Facts
from datagen.llm.forms import Forms
from datagen.schemas import object_schema, parse_schema
from tests.jobs import digest, respond, rows, write_seeds
from tests.server import Message, Server, running

NOTE = object_schema({"title": {"type": "string"}, "stars": {"type": "integer"}})
SCHEMA = parse_schema("note", NOTE, "note")
SENT = {"temperature": 0.7, "max_tokens": 99, "response_format": SCHEMA.response_format}
JSON_ALONE = {"temperature": 0.7, "max_tokens": 99, "response_format": {"type": "json_object"}}
IN_WORDS = {"temperature": 0.7, "max_tokens": 99}


def wrapped(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


NO_SCHEMA: dict[str, tuple[int, Any]] = {
    "openai": (400, wrapped("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this "
                            "model.", param="response_format")),
    "deepseek": (400, wrapped("This response_format type is unavailable now")),
    "llama.cpp": (400, wrapped('response_format type must be one of "text" or "json_object", but got: json_schema')),
    "groq": (400, wrapped("This model does not support response format `json_schema`.", param="response_format")),
    "together": (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'json_object'",
                                   "type": "literal_error"}]}),
    "xgrammar": (500, wrapped("Failed to compile the grammar: unsupported keyword maxLength")),
}  # fmt: skip
NO_JSON: dict[str, tuple[int, Any]] = {
    "lmstudio": (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
    "deepseek": (400, wrapped("This response_format type is unavailable now")),
    "mode": (400, wrapped("JSON mode is not enabled for this model")),
    "words": (400, wrapped("'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                           "'json_object'.")),
}  # fmt: skip
NO_FORM: dict[str, tuple[int, Any]] = {
    "azure": (400, wrapped("Unrecognized request argument supplied: response_format")),
    "gemini": (400, [wrapped("Invalid JSON payload received. Unknown name \"response_format\": Cannot find field.")]),
    "pydantic": (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "response_format"],
                                   "msg": "Extra inputs are not permitted"}]}),
    "litellm": (400, wrapped("litellm.UnsupportedParamsError: bedrock does not support parameters: "
                             "['response_format', 'temperature']", param=None)),
    "router": (404, wrapped("No endpoints that support structured outputs")),
    "plain": (400, "response_format is not supported"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time to open an endpoint is that of reading all certificates."""
    if known := ssl.create_default_context().get_ca_certs(binary_form=True):
        Path("one.pem").write_text(ssl.DER_cert_to_PEM_cert(known[0]))
        monkeypatch.setenv("SSL_CERT_FILE", "one.pem")


def body_of(refusal: Any) -> str:
    return refusal if isinstance(refusal, str) else json.dumps(refusal)


@pytest.mark.parametrize("name", NO_SCHEMA)
def test_a_refused_schema_becomes_json_alone(name: str) -> None:
    forms = Forms("m at URL")
    assert forms.learn(body_of(NO_SCHEMA[name][1]), SENT)
    assert forms.adapted(SENT, SCHEMA) == JSON_ALONE
    assert forms.notes == ["m at URL: response_format json_schema is refused and was not sent"]
    assert forms.adapted(SENT, None) == SENT, "a form that the user asks for is not weakened"


@pytest.mark.parametrize("name", NO_JSON)
def test_json_alone_becomes_the_words_of_the_prompt(name: str) -> None:
    forms = Forms("m at URL")
    forms.learn(body_of(NO_SCHEMA["openai"][1]), SENT)
    assert forms.learn(body_of(NO_JSON[name][1]), JSON_ALONE)
    assert forms.adapted(SENT, SCHEMA) == IN_WORDS


@pytest.mark.parametrize(
    "words",
    [
        "Your prompt was flagged.",
        "max_tokens is too large",
        "Unsupported parameter: 'temperature'. Supported parameters: top_p, response_format.",
        "You wrote about a grammar of Latin.",
        "",
    ],
)
def test_other_refusals_are_not_about_the_form(words: str) -> None:
    forms = Forms("m at URL")
    assert not forms.learn(json.dumps(wrapped(words)), SENT)
    assert forms.adapted(SENT, SCHEMA) == SENT


def test_one_bad_schema_says_nothing_of_others() -> None:
    forms = Forms("m at URL")
    words = "Invalid schema for response_format 'note': In context=(), 'additionalProperties' is required"
    assert forms.learn(json.dumps(wrapped(words, param="response_format")), SENT)
    assert forms.adapted(SENT, SCHEMA) == JSON_ALONE
    other = parse_schema("other", NOTE, "other")
    sent = {**SENT, "response_format": other.response_format}
    assert forms.adapted(sent, other) == sent
    assert not forms.facts.values, "the next run has schemas of its own"


def test_a_list_is_not_asked_for_as_json_alone_since_that_is_an_object() -> None:
    forms, numbers = Forms("m at URL"), parse_schema("numbers", {"type": "array"}, "numbers")
    sent = {**IN_WORDS, "response_format": numbers.response_format}
    forms.learn(body_of(NO_SCHEMA["openai"][1]), sent)
    assert forms.adapted(sent, numbers) == IN_WORDS


def test_what_an_earlier_run_has_learned() -> None:
    forms = Forms("m at URL")
    forms.recall(Facts({"refused": ["json_schema", "x", 3]}, 1.0))
    assert forms.facts == Facts({"refused": ["json_schema"]}, 1.0) and not forms.notes
    assert forms.adapted(SENT, SCHEMA) == JSON_ALONE
    assert forms.notes == ["m at URL: remembered: response_format json_schema is refused and was not sent"]
    strange: list[dict[str, Any]] = [{"refused": 3}, {"refused": {}}, {"other": []}]
    for nonsense in strange:
        forms.recall(Facts(nonsense, 1.0))
        assert forms.adapted(SENT, SCHEMA) == SENT


def play(decorated: str) -> Callable[[str, list[Message], int, str], str]:
    """Answer with JSON that depends on the request alone, written in some way."""

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        value = {"title": f"of {messages[-1]['content'][:30]}", "stars": len(messages[-1]["content"]) % 5}
        return decorated.replace("JSON", json.dumps(value))

    return answer


def refuse_forms(taken: tuple[str, ...], schema_words: str, json_words: str) -> Callable[[dict[str, Any]], Any]:
    """Refuse the types of `response_format` that are not taken."""
    words = {"json_schema": {**NO_SCHEMA, **NO_FORM}[schema_words], "json_object": {**NO_JSON, **NO_FORM}[json_words]}

    def refuse(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        kind = (request.get("response_format") or {}).get("type")
        return words[kind] if kind and kind not in taken else None

    return refuse


SERVERS = {
    "takes a schema": (("json_schema",), "openai", "lmstudio"),
    "takes JSON alone": (("json_object",), "deepseek", "words"),
    "takes JSON alone, fails at a schema": (("json_object",), "xgrammar", "words"),
    "takes neither, LM Studio": ((), "llama.cpp", "lmstudio"),
    "takes neither, pydantic": ((), "pydantic", "pydantic"),
    "takes neither, a router": ((), "router", "router"),
}
"""The forms that are taken, and the words in which the others are refused."""


@pytest.fixture
def note() -> Path:
    """The file of the schema."""
    Path("note.json").write_text(json.dumps(NOTE))
    return Path("note.json")


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_gives_the_same_rows_at_any_concurrency(name: str, note: Path) -> None:
    prompts = write_seeds(70)
    taken, *words = SERVERS[name]
    for concurrency in ("1", "64"):
        with running(Server(answer=play("JSON"), refuse=refuse_forms(taken, *words))) as server:
            output = f"{concurrency}/x.jsonl"
            outcome = respond(prompts, f"m@{server.url}", output, schema=note, concurrency=concurrency)
        notes = [text for text in outcome.notes if "refused" in text]
        assert len(notes) == 2 - len(taken) - ("json_schema" in taken), "each is said once"
        values = [json.loads(row["response"]) for row in rows(output)]
        assert [value["title"] for value in values] == [f"of {row['prompt'][:30]}" for row in rows("seeds.jsonl")]
    assert digest("1/x.jsonl") == digest("64/x.jsonl")


def test_the_next_run_sends_what_is_taken_and_replays_what_was_answered(note: Path) -> None:
    with running(Server(answer=play("JSON"), refuse=refuse_forms((), "azure", "azure"))) as server:
        respond(write_seeds(3), f"m@{server.url}", "x.jsonl", schema=note)
        requests = server.requests
        outcome = respond(write_seeds(4, "more.jsonl"), f"m@{server.url}", "y.jsonl", schema=note)
        assert server.requests == requests + 1, "the key of a call is that of what was asked for"
    assert sum("remembered" in text for text in outcome.notes) == 2


@pytest.mark.parametrize("concurrency", ["1", "64"])
def test_a_server_that_ignores_the_form_is_read_and_counted(concurrency: str, note: Path) -> None:
    prompts = write_seeds(8)
    with running(Server(answer=play("Here you are:\n```json\nJSON\n```\nAnything else?"))) as server:
        outcome = respond(prompts, f"m@{server.url}", "x.jsonl", schema=note, concurrency=concurrency)
    assert outcome.result["funnel"]["kept"] == 8
    assert all(json.loads(row["response"]) for row in rows("x.jsonl"))
    assert f"m at {server.url}: 8 of 8 answers are no plain JSON, though response_format was sent; they are read as " \
        "they stand" in outcome.notes  # fmt: skip


def test_what_is_never_valid_is_asked_three_times_and_rejected_with_the_reason(note: Path) -> None:
    with running(Server(answer=lambda *_: '{"title": "a", "stars": "many"}')) as server:
        outcome = respond(write_seeds(2), f"m@{server.url}", "x.jsonl", schema=note)
    assert server.requests == 6
    assert outcome.result["funnel"]["rejected"] == {"off_schema": 2}
    rejected = rows("x.rejected.jsonl")[0]
    assert rejected["record"]["error"] == 'stars: "many" is no integer'
    assert rejected["reply"] == '{"title": "a", "stars": "many"}'


def test_a_form_of_the_users_own_is_sent_as_it_is_and_its_refusal_stands(note: Path) -> None:
    refuse = refuse_forms((), "openai", "lmstudio")
    with running(Server(answer=play("JSON"), refuse=refuse)) as server:
        param = ['response_format={"type": "json_object"}']
        outcome = respond(write_seeds(2), f"m@{server.url}", "x.jsonl", schema=note, param=param)
    assert outcome.result["funnel"]["kept"] == 0 and server.requests == 2
