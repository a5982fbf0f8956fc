"""Log-probabilities in whatever shape a server sends them: read, or passed over; they never end a run."""

import json
from typing import Any

import pytest

from datagen.llm.call import Reply, read_logprobs, read_reply
from tests.jobs import rows
from tests.judge.rows import answers_by_label, judge, sample
from tests.wire import Pieces, http, wire

TOKEN = {"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": [{"token": "A", "logprob": -0.5}]}
STRANGE: dict[str, Any] = {
    "null": None,
    "text": "none",
    "a number": 7,
    "true": True,
    "a list": [TOKEN],
    "an object": {},
    "content null": {"content": None},
    "content text": {"content": "A"},
    "content object": {"content": TOKEN},
    "tokens of text": {"content": ["A", "B"]},
    "tokens null": {"content": [None, TOKEN]},
    "no token": {"content": [{"logprob": -1}]},
    "token null": {"content": [{**TOKEN, "token": None}]},
    "token of bytes": {"content": [{**TOKEN, "token": [65]}]},
    "top of an object": {"content": [{**TOKEN, "top_logprobs": {"A": -0.5}}]},
    "top of text": {"content": [{**TOKEN, "top_logprobs": "A"}]},
    "top true": {"content": [{**TOKEN, "top_logprobs": True}]},
    "top of null": {"content": [{**TOKEN, "top_logprobs": [None]}]},
    "no logprob": {"content": [{**TOKEN, "top_logprobs": [{"token": "A"}]}]},
    "logprob null": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": None}]}]},
    "logprob text": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": "-1"}]}]},
    "logprob true": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": True}]}]},
    "logprob NaN": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": float("nan")}]}]},
    "logprob large": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": 1000}]}]},
    "logprob huge": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": -(10**400)}]}]},
    "completions API": {"tokens": ["A"], "token_logprobs": [-0.5], "top_logprobs": [{"A": -0.5}]},
}
GOOD: dict[str, Any] = {
    "as in the API": {"content": [TOKEN], "refusal": None},
    "no token": {"content": []},
    "top null": {"content": [{**TOKEN, "top_logprobs": None}]},
    "no top": {"content": [{"token": "A", "logprob": -0.5}]},
    "impossible": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": float("-inf")}]}]},
    "a little above 0": {"content": [{**TOKEN, "top_logprobs": [{"token": "A", "logprob": 1e-6}]}]},
}


@pytest.mark.parametrize("name", STRANGE)
def test_log_probabilities_in_another_shape_are_none(name: str) -> None:
    assert read_logprobs(STRANGE[name]) is None
    choice = {"message": {"content": "A"}, "logprobs": STRANGE[name]}
    assert read_reply(Reply(200, json.dumps({"choices": [choice]})), None).logprobs is None


@pytest.mark.parametrize("name", GOOD)
def test_log_probabilities_in_the_shape_of_the_api_are_read(name: str) -> None:
    assert isinstance(read_logprobs(GOOD[name]), list)


@pytest.mark.parametrize("by", ["score", "compare"])
@pytest.mark.parametrize("name", [*STRANGE, "scores beyond what Python reads"])
def test_judge_with_log_probabilities_that_are_none_gives_no_score(name: str, by: str) -> None:
    def answer(body: bytes) -> Pieces:
        labels = list(answers_by_label(json.loads(body)["messages"]))
        text = "\n".join(f"{label} helpful: 3" for label in labels) if by == "score" else f"Verdict: {labels[0]}"
        digits = [{"token": "9" * 5000, "logprob": -0.1}, {"token": "²", "logprob": -3}]
        long = {"content": [{"token": letter, "top_logprobs": digits} for letter in text]}
        choice = {"message": {"content": text}, "logprobs": STRANGE.get(name, long), "finish_reason": "stop"}
        return [http(200, json.dumps({"choices": [choice]}).encode())]

    with wire(answer) as server:
        outcome = judge([sample("a", "bb")], by, f"judge@{server.url}", logprobs=True)
    assert outcome.status == "finished"
    assert [row["reason"] for row in rows("out.rejected.jsonl")] == ["judge_unparsed"]
    replies = 1 if by == "score" else 2
    assert outcome.result["funnel"]["unobtained"] == {
        "replies without probabilities": {"asked": replies, "missing": replies},
        "unread replies": {"asked": replies, "missing": 0},
    }
