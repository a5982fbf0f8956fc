"""A raw reply is read once and strictly: good, or bad with a reason."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import ParseError
from datagen.llm.call import (
    BadAnswer,
    Completion,
    Reply,
    error_message,
    read_reply,
)
from datagen.llm.model import call_key
from datagen.llm.spec import parse_spec

MESSAGES = [{"role": "user", "content": "Why?"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
NOT_COUNTED: dict[str, int | None] = {"prompt_tokens": None, "completion_tokens": None}


def reply(content: object = "So.", finish: str | None = "stop", /, status: int = 200, **message: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return Reply(status, json.dumps({"model": "m-1", "choices": [choice], "usage": USAGE}))


def bad(answer: Reply) -> BadAnswer:
    with pytest.raises(BadAnswer) as raised:
        read_reply(answer, None)
    return raised.value


def test_a_good_reply_becomes_a_completion() -> None:
    assert read_reply(reply(), None) == Completion(
        "So.", "", "stop", {"prompt_tokens": 3, "completion_tokens": 5}, None, "m-1"
    )


def test_missing_fields_of_a_reply_are_empty_or_none() -> None:
    body = {"choices": [{"message": {"content": "So."}}]}
    assert read_reply(Reply(200, json.dumps(body)), None) == Completion("So.", "", None, NOT_COUNTED, None, "")


@pytest.mark.parametrize("text", ["So.", " So.\n", "0", "你好", "a\u2028b", "null", "[]", "\U0001f600"], ids=ascii)
def test_an_answer_comes_through_as_it_is(text: str) -> None:
    assert read_reply(reply(text), None).text == text


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        (reply(""), "empty answer", ""),
        (reply(None), "empty answer", ""),
        (reply(" \n\t\u3000"), "empty answer", ""),
        (reply("", None), "empty answer", ""),
        (reply(None, "tool_calls"), "empty answer", ""),
        (reply("<think>hm</think>\n"), "empty answer", ""),
        (reply("So", "length"), "cut answer", "raise --max-tokens"),
        (reply("", "length"), "cut answer", "raise --max-tokens"),
        (reply("<think>hm</think>So", "length"), "cut answer", "raise --max-tokens"),
        (reply("<think>never ends"), "cut answer", "raise --max-tokens"),
        (reply("\n <think>never ends", None), "cut answer", "raise --max-tokens"),
        (reply("<think>a</think><think>b"), "cut answer", "raise --max-tokens"),
        (reply("So.", "content_filter"), "filtered answer", ""),
        (reply(None, "content_filter"), "filtered answer", ""),
        (reply(None, refusal="I cannot."), "filtered answer", "I cannot."),
        (reply([{"type": "refusal", "refusal": "I cannot."}]), "filtered answer", "I cannot."),
        (reply([{"type": "image", "image": "AA=="}]), "empty answer", ""),
        (reply("half \ud800"), "broken answer", "half a character (a lone surrogate)"),
        (reply("So.", reasoning="half \ud800"), "broken answer", "half a character (a lone surrogate)"),
        (reply("\udc00\ud800"), "broken answer", "half a character (a lone surrogate)"),
    ],
)
def test_a_bad_answer_says_why(answer: Reply, reason: str, detail: str) -> None:
    error = bad(answer)
    assert (error.reason, error.detail, error.final) == (reason, detail, False)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_of_the_request_is_final(status: int) -> None:
    error = bad(Reply(status, '{"error": {"message": "too\\n long"}}'))
    assert (error.reason, error.detail, error.final) == (f"refused (HTTP {status})", "too long", True)


@pytest.mark.parametrize(
    ("content", "message", "text", "reasoning"),
    [
        ("<think>hm</think>\nSo.", {}, "So.", "hm"),
        ("\n<think>\nhm\n</think>So.", {}, "So.", "hm"),
        ("So.", {"reasoning": "hm"}, "So.", "hm"),
        ("So.", {"reasoning_content": "hm"}, "So.", "hm"),
        ("So.", {"reasoning": None, "reasoning_content": "hm"}, "So.", "hm"),
        ("<think>a</think>So.", {"reasoning": "b"}, "So.", "b\n\na"),
        ("<think>hm</think>So.", {"reasoning": "hm"}, "So.", "hm"),
        ("Use <think>x</think>.", {}, "Use <think>x</think>.", ""),
        ("The tag <think> opens.", {}, "The tag <think> opens.", ""),
        ("So.", {}, "So.", ""),
    ],
)
def test_thinking_is_kept_apart(content: str, message: Mapping[str, Any], text: str, reasoning: str) -> None:
    completion = read_reply(reply(content, **message), None)
    assert (completion.text, completion.reasoning) == (text, reasoning)


def test_the_parser_sees_the_answer_without_thinking_and_its_value_is_kept() -> None:
    assert read_reply(reply("<think>no</think>yes"), str.upper).value == "YES"


def test_an_answer_that_does_not_parse_is_bad_and_says_what_is_missing() -> None:
    def refuse(text: str) -> None:
        raise ParseError(f"no number in {text!r}")

    with pytest.raises(BadAnswer) as raised:
        read_reply(reply(), refuse)
    assert (raised.value.reason, raised.value.detail, raised.value.final) == (
        "unparsed answer", "no number in 'So.'", False
    )  # fmt: skip


@pytest.mark.parametrize(
    "error", [ValueError("x\ny"), RecursionError("x y"), OverflowError(), MemoryError(), KeyError(1)]
)
def test_whatever_a_parser_raises_is_a_bad_answer_with_a_reason_of_its_own(error: Exception) -> None:
    def parse(text: str) -> None:
        raise error

    with pytest.raises(BadAnswer) as bad:
        read_reply(reply(), parse)
    assert bad.value.reason == "parser error"
    assert bad.value.detail == f"{type(error).__name__}: {' '.join(str(error).split())}".strip()


def test_a_bad_answer_is_never_parsed() -> None:
    def parse(text: str) -> None:
        raise AssertionError

    for answer in (reply(""), reply("So", "length"), reply("So", "content_filter"), reply("\ud800")):
        with pytest.raises(BadAnswer):
            read_reply(answer, parse)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (USAGE, (3, 5)),
        ({"prompt_tokens": 3}, (3, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0)),
        ({"prompt_tokens": "3", "completion_tokens": 5.0}, (None, None)),
        ({"prompt_tokens": None, "completion_tokens": [5]}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
        ([3, 5], (None, None)),
        ("8", (None, None)),
    ],
    ids=str,
)
def test_tokens_that_the_server_does_not_count_are_none(usage: object, tokens: tuple[int | None, ...]) -> None:
    body = {"choices": [{"message": {"content": "So."}}], "usage": usage}
    assert tuple(Reply(200, json.dumps(body)).usage.values()) == tokens


def test_tokens_of_a_body_without_usage_are_none() -> None:
    assert Reply(200, "{}").usage == NOT_COUNTED


def test_a_bad_answer_costs_its_tokens_and_a_refusal_none() -> None:
    assert reply("", "length").usage == {"prompt_tokens": 3, "completion_tokens": 5}
    for body in (json.dumps({"usage": USAGE}), "no JSON"):
        assert Reply(400, body).usage == NOT_COUNTED


BODIES: list[tuple[object, bool]] = [
    ({"choices": [{"message": {"content": "So."}}]}, True),
    ({"choices": [{"message": {"content": ""}}]}, True),
    ({"choices": [{"message": {"content": None}}]}, True),
    ({"choices": [{"message": {"role": "assistant", "tool_calls": []}}]}, True),
    ({"choices": [{"message": {"content": "a"}}, {"nonsense": 1}], "more": {}}, True),
    ({"choices": [{"message": {"content": 7}}]}, False),
    ({"choices": [{"message": {"content": [{"type": "text", "text": "So."}]}}]}, True),
    ({"choices": [{"message": {"content": ["So."]}}]}, False),
    ({"choices": [{"message": {"content": {"text": "So."}}}]}, False),
    ({"choices": [{"message": "So."}]}, False),
    ({"choices": [{"message": None}]}, False),
    ({"choices": [{"text": "So."}]}, False),
    ({"choices": ["So."]}, False),
    ({"choices": [None]}, False),
    ({"choices": []}, False),
    ({"choices": {}}, False),
    ({"choices": None}, False),
    ({"error": {"message": "no"}}, False),
    ({}, False),
    ([], False),
    ("So.", False),
    (None, False),
    (7, False),
]


@pytest.mark.parametrize(("body", "is_one"), BODIES, ids=[json.dumps(body) for body, _ in BODIES])
def test_a_chat_completion_is_recognised_by_its_shape(body: object, is_one: bool) -> None:
    assert Reply(200, json.dumps(body)).is_chat_completion == is_one


@pytest.mark.parametrize("body", ["", "So.", '{"choices": [', "<html>502</html>", "[" * 100_000, "\x00"], ids=range(6))
def test_what_is_not_json_is_no_chat_completion(body: str) -> None:
    assert not Reply(200, body).is_chat_completion


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["choices", "message", "content", "finish_reason", "usage", "model"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_body_of_the_shape_can_be_read(body: object) -> None:
    """Every body that the endpoint accepts is read: as an answer or as a bad answer, without another error."""
    for value in (body, {"choices": [{"message": {"content": body}}]}, {"choices": [{"message": body}], "usage": body}):
        if (answer := Reply(200, json.dumps(value))).is_chat_completion:
            with suppress(BadAnswer):
                assert read_reply(answer, None).text.strip()
            assert all(isinstance(tokens, int | None) for tokens in answer.usage.values())
            assert isinstance(answer.text, str | None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "too long"}}', "too long"),
        ('{"error": "too long"}', "too long"),
        ('{"message": "too long"}', "too long"),
        ('{"error": {"message": "two\\nlines  here"}}', "two lines here"),
        ('{"error": {}}', '{"error": {}}'),
        ('{"detail": "x"}', '{"detail": "x"}'),
        ("<html>\n502</html>", "<html> 502</html>"),
        ('[{"error": {"message": "too long"}}]', "too long"),
        ("[1]", "[1]"),
        ("[]", "[]"),
        ('"text"', '"text"'),
        ("", ""),
        ("x" * 1000, "x" * 400),
    ],
)
def test_the_error_message_of_a_server_fits_in_one_line(body: str, message: str) -> None:
    assert error_message(body) == message


def test_the_record_of_a_reply_is_its_text_or_the_whole_refusal() -> None:
    assert reply("So").text == "So"
    assert reply(None).text is None
    assert Reply(400, '{"error": "no"}').text == '{"error": "no"}'


@given(st.text(st.characters()))
def test_a_lone_surrogate_makes_an_answer_broken(text: str) -> None:
    is_broken = any("\ud800" <= character <= "\udfff" for character in text)
    answer = f"So: {text}"
    if is_broken:
        assert bad(reply(answer)).reason == "broken answer"
    else:
        assert read_reply(reply(answer), None).text == answer


def test_a_key_is_the_same_in_every_version() -> None:
    """Recorded answers can be reused only as long as this key does not change."""
    key = call_key("m", MESSAGES, {"temperature": 1, "top_p": 0.9}, 0)
    assert key.hex() == "a8b5c9fe8994226a8c3ff7bc474e109a91951ea9b858e08caa88e1bef5482001"
    assert len(key) == 32


PARAMS = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))


@given(PARAMS, st.randoms())
def test_the_order_of_parameters_does_not_count(params: dict[str, Any], chance: Any) -> None:
    names = list(params)
    chance.shuffle(names)
    turned = {name: params[name] for name in names}
    assert call_key("m", MESSAGES, params, 0) == call_key("m", MESSAGES, turned, 0)


def test_the_order_of_a_messages_keys_does_not_count() -> None:
    assert call_key("m", [{"content": "Why?", "role": "user"}], {}, 0) == call_key("m", MESSAGES, {}, 0)


@pytest.mark.parametrize(
    ("model", "messages", "params", "sample"),
    [
        ("n", MESSAGES, {"temperature": 1}, 0),
        ("m#tag", MESSAGES, {"temperature": 1}, 0),
        ("m", [*MESSAGES, *MESSAGES], {"temperature": 1}, 0),
        ("m", [{"role": "system", "content": "Why?"}], {"temperature": 1}, 0),
        ("m", [{"role": "user", "content": "Why? "}], {"temperature": 1}, 0),
        ("m", MESSAGES, {"temperature": 0}, 0),
        ("m", MESSAGES, {}, 0),
        ("m", MESSAGES, {"temperature": 1, "top_p": 1}, 0),
        ("m", MESSAGES, {"temperature": "1"}, 0),
        ("m", MESSAGES, {"temperature": 1}, 1),
    ],
)
def test_everything_that_decides_the_answer_is_in_the_key(
    model: str, messages: list[dict[str, str]], params: dict[str, Any], sample: int
) -> None:
    assert call_key(model, messages, params, sample) != call_key("m", MESSAGES, {"temperature": 1}, 0)


def test_where_a_model_is_asked_and_with_which_key_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(spec: str) -> bytes:
        return call_key(parse_spec(spec).identity, MESSAGES, {}, 0)

    before = key("m@http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert key("m@https://example.com/v1") == key("m") == before
    assert key("m#a@http://127.0.0.1:1/v1") != before


@pytest.mark.parametrize("finish", ["MAX_TOKENS", "max_tokens", "model_length", " Length ", "incomplete"])
def test_a_limit_of_the_length_has_many_names(finish: str) -> None:
    with pytest.raises(BadAnswer, match="cut answer"):
        read_reply(reply("So", finish), None)
    assert read_reply(reply("So", finish), None, cut_ok=True).text == "So"


@pytest.mark.parametrize("finish", ["SAFETY", "RECITATION", "refusal", "content_filter", "Sensitive"])
def test_a_withheld_answer_has_many_names(finish: str) -> None:
    with pytest.raises(BadAnswer, match="filtered answer"):
        read_reply(reply("So", finish), None)


@pytest.mark.parametrize("finish", [None, "", "stop", "STOP", "end_turn", "eos", "stop_sequence", "completed"])
def test_a_whole_answer_has_many_names(finish: str | None) -> None:
    assert read_reply(reply("So", finish), None).text == "So"


@pytest.mark.parametrize("finish", ["abort", "error", "x" * 500, "\x1b[31m"])
def test_an_ending_in_no_table_is_no_answer_and_is_named(finish: str) -> None:
    with pytest.raises(BadAnswer, match="unknown finish reason: ") as bad:
        read_reply(reply("So", finish), None)
    assert len(bad.value.reason) < 80
