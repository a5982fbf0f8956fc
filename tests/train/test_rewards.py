"""Every kind of reward gets the right input, scores in its own tokens, and fails with one line."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2ForSequenceClassification,
)

from datagen.errors import InputError
from datagen.records.record import Record
from datagen_train import reward as reward_model
from datagen_train.errors import TrainingStopped
from datagen_train.rewards.reward_model import load_reward
from datagen_train.rewards.specs import Rewards, identity, load_function, split_weight
from tests.train.real_models import make_real
from tests.train.runs import train
from tests.train.tasks import problems, write_preferences

WORDS = "[PAD] [UNK] [CLS] [SEP] good bad fine awful film".split()
LABELS = {0: "negative", 1: "positive"}
ROWS = [Record(f"{i:016x}", "How was it?", extra={"colour": colour}) for i, colour in enumerate(("red", "blue"))]


def score(specs: Sequence[str], answers: Sequence[str], rows: Sequence[Record] = ROWS) -> list[float | None]:
    return Rewards(specs).score(rows, answers, [[1, 2, 3]] * len(rows)).total


def write_function(body: str) -> None:
    Path("mine.py").write_text(f"def f(prompts, completions, completion_ids, **more):\n    {body}\n")


@pytest.fixture
def classifier() -> str:
    """A classifier with a tokenizer of whole words, which frames a text in [CLS] and [SEP]."""
    base = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    base.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained("classifier")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, initializer_range=1.0, id2label=LABELS,
        label2id={name: i for i, name in LABELS.items()},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained("classifier")
    return "classifier"


def by_hand(text: str) -> torch.Tensor:
    """Return the logits of a text, its ids looked up one by one."""
    ids = [2, *(WORDS.index(word) if word in WORDS else 1 for word in text.split())][:11]
    model = BertForSequenceClassification.from_pretrained("classifier").eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([[*ids, 3]])).logits[0]
    return logits


TEXTS = ["good film", "bad awful film " * 9]


@pytest.mark.parametrize(("label", "at"), [("negative", 0), ("positive", 1), ("1", 1)])
def test_a_classifier_reads_text_in_its_own_tokens(classifier: str, label: str, at: int) -> None:
    """A long text is cut to the classifier's maximum length, and padding changes nothing."""
    due = [float(by_hand(text)[at]) for text in TEXTS]
    assert score([f"classifier:{classifier}#{label}"], TEXTS) == pytest.approx(due, abs=1e-5)
    assert due[0] != pytest.approx(due[1], abs=1e-3)


def test_an_answer_without_a_token_gets_no_score(classifier: str) -> None:
    """Its score would be that of the padding."""
    bare = PreTrainedTokenizerFast.from_pretrained(classifier)
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    bare.save_pretrained(classifier)
    for answers in (["good film", ""], ["", ""]):
        first, second = score([f"classifier:{classifier}#1"], answers)
        assert (first is None) == (answers[0] == "")
        assert second is None


@pytest.mark.parametrize(
    "template", ["", "{% for m in messages %}{{ m.role + ' ' + m.content + ' [SEP] ' }}{% endfor %}"]
)
def test_a_public_reward_model_reads_the_prompt_too(classifier: str, template: str) -> None:
    """By its chat template, or as a pair of texts; an answer that it cannot read whole gets no score."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(classifier)
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(classifier)
    model = BertForSequenceClassification.from_pretrained(classifier).eval()
    row = Record("0" * 16, "bad film", "good")
    given: Any = (
        tokenizer("user bad film [SEP] assistant good film [SEP] ", add_special_tokens=False, return_tensors="pt")
        if template
        else tokenizer("bad film", "good film", return_tensors="pt")
    )
    with torch.no_grad():
        due = float(model(**given).logits[0, 1])
    spec = [f"classifier:{classifier}#positive,chat"]
    first, second = score(spec, ["good film", "good film " * 9], [row, row])
    assert first == pytest.approx(due, abs=1e-5)
    assert second is None
    with pytest.raises(InputError, match=r"#positive,talk: talk is none of logprob, chat"):
        score([f"classifier:{classifier}#positive,talk"], ["good film"], [row])


def test_a_model_without_a_head_is_no_reward(classifier: str) -> None:
    config = BertConfig.from_pretrained(classifier)
    BertModel(config).save_pretrained(classifier)
    with pytest.raises(InputError, match="weights are missing"):
        score([f"classifier:{classifier}#positive"], ["good film"])


@pytest.mark.parametrize("padding", [True, False])
def test_a_decoder_scores_each_conversation_at_its_own_end(padding: bool) -> None:
    """As Skywork's and OpenAssistant's do, with one label; some of them name no padding."""
    model, tokenizer = make_real("Qwen2", ["good bad film"])
    config = model.config
    config.num_labels, config.pad_token_id = 1, int(tokenizer.pad_token_id) if padding else None
    torch.manual_seed(0)
    scorer = Qwen2ForSequenceClassification(config).eval()
    scorer.save_pretrained("public")
    tokenizer.save_pretrained("public")
    rows = [Record("0" * 16, "A film?", "good"), Record("1" * 16, "A film, and a long one?", "good")]
    due = []
    for row, text in zip(rows, ["good film", "bad"], strict=True):
        chat = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": text}]
        with torch.no_grad():
            due.append(
                float(scorer(**tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")).logits)
            )
    assert score(["classifier:public#,chat"], ["good film", "bad"], rows) == pytest.approx(due, abs=1e-4)


def test_a_classifier_gives_log_probabilities_if_asked(classifier: str) -> None:
    due = [float(by_hand(text).log_softmax(-1)[1]) for text in TEXTS]
    assert score([f"classifier:{classifier}#positive,logprob"], TEXTS) == pytest.approx(due, abs=1e-5)


def test_a_reward_model_is_asked_as_it_was_trained(base: str) -> None:
    write_preferences(Path("prefs.jsonl"), problems(0)[:40])
    train(reward_model, "prefs.jsonl", model=base, output="rm", steps=2, batch_size=8)
    alone = load_reward("rm")
    due = [alone.score([row.prompt], [answer])[0] for row, answer in zip(ROWS, ("12", "3<|im_end|>"), strict=True)]
    assert score(["rm"], ["12", "3<|im_end|>"]) == pytest.approx(due, abs=1e-5)
    contract = json.loads(Path("rm/reward.json").read_text())
    Path("rm/reward.json").write_text(json.dumps({**contract, "template": "another"}))
    with pytest.raises(InputError, match="its template is not the one it was trained with"):
        Rewards(["rm"])


def test_a_function_gets_what_trls_protocol_promises() -> None:
    write_function(
        "more['log_metric']('seen', 3); more['log_extra']('note', ['a', 'b']);"
        "assert list(more['response']) == ['x', None] and more['trainer_state'] == 'state';"
        "return [len(c) + (colour == 'red') * 10 for c, colour in zip(completions, more['colour'])]"
    )
    rows = [Record(ROWS[0].id, "How?", "x", extra={"colour": "red"}), ROWS[1]]
    scored = Rewards(["mine.py:f"]).score(rows, ["abc", "d"], [[1], [2]], "state")
    assert scored.total == [13, 1]
    assert scored.metrics == {"seen": 3}
    assert scored.extra == {"note": ["a", "b"]}


def test_a_function_may_be_async_and_gets_messages_for_a_conversation() -> None:
    Path("mine.py").write_text(
        "import asyncio\nasync def f(prompts, completions, **_):\n    await asyncio.sleep(0)\n"
        "    return [len(p) + len(c[0]['content']) for p, c in zip(prompts, completions)]\n"
    )
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert score(["mine.py:f"], ["abc"], [Record("0" * 16, turns, None)]) == [5]


def test_a_verifier_says_1_0_or_nothing() -> None:
    rows = [Record(f"{i:016x}", "What is 3 + 4?", "7") for i in range(3)]
    assert score(["verifier:answer"], ["The answer is 7.", "The answer is 8.", "Who knows?"], rows) == [1, 0, None]


def test_rewards_are_added_up_by_weight_and_a_missing_part_is_no_zero(classifier: str) -> None:
    write_function("return [1.0, None]")
    specs = [f"2*classifier:{classifier}#positive", "-0.5*mine.py:f"]
    first = 2 * float(by_hand(TEXTS[0])[1]) - 0.5
    scored = Rewards(specs).score(ROWS, TEXTS, [[1], [2]])
    assert scored.total == [pytest.approx(first, abs=1e-5), None]
    assert scored.parts["mine.py:f"] == [1.0, None]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return [1.0]", "returned 1 scores for 2 answers"),
        ("return ['good', 'bad']", "returned 'good', which is no number"),
        ("raise ValueError('no idea')", "failed with ValueError"),
    ],
)
def test_a_function_that_fails_ends_the_run(body: str, says: str) -> None:
    write_function(body)
    with pytest.raises(TrainingStopped, match=says):
        score(["mine.py:f"], ["a", "b"])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere", "no such folder"),
        ("nowhere.py:f", "No such file"),
        ("mine.py:g", r"has no g. It has f"),
        ("broken.py:f", r"broken.py:1: cannot be loaded"),
        ("verifier:taste", "expected one of answer"),
        ("classifier:nowhere#x", "model nowhere: no folder here"),
        ("classifier:classifier#neutral", "name one of its labels: negative, positive"),
        ("classifier:classifier", "name one of its labels"),
        ("classifier:classifier#positive,odds", "odds is none of logprob, chat"),
    ],
)
def test_a_reward_that_is_none_is_refused_in_one_line(classifier: str, spec: str, says: str) -> None:
    write_function("return []")
    Path("broken.py").write_text("import no_such_module\n")
    with pytest.raises(InputError, match=says) as refused:
        load_function(spec)
    assert "\n" not in str(refused.value)


def test_a_weight_stands_before_a_star() -> None:
    assert split_weight("0.5*verifier:answer") == (0.5, "verifier:answer")
    assert split_weight("-.5*rm") == (-0.5, "rm")
    assert split_weight("folder*name") == (1.0, "folder*name")


def test_an_edited_function_makes_another_run() -> None:
    write_function("return [1.0]")
    before = identity(["mine.py:f"])
    write_function("return [2.0]")
    assert identity(["mine.py:f"]) != before


# A service


@contextmanager
def service(replies: list[tuple[int, Any]], to: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Serve the replies in order and repeat the last one, with a Location `to`; yield (url, the requests)."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, body = replies.pop(0) if len(replies) > 1 else replies[0]
            self.send_response(status)
            if to:
                self.send_header("Location", to)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score", requests
    finally:
        server.shutdown()
        server.server_close()


def test_a_service_is_asked_with_text_and_asked_again_after_a_fault() -> None:
    with service([(503, {}), (429, {}), (200, {"rewards": [0.25, None]})]) as (url, requests):
        assert score([url], ["好", "b"]) == [0.25, None]
    assert len(requests) == 3
    assert requests[2] == {"prompts": ["How was it?"] * 2, "responses": ["好", "b"]}


@pytest.mark.parametrize(
    ("reply", "says", "tries"),
    [
        ((500, {}), "HTTP 500, 3 times", 3),
        ((404, {"no": "way"}), "HTTP 404", 1),
        ((200, {"scores": [1, 2]}), 'no JSON with "rewards"', 1),
        ((200, {"rewards": [1]}), "returned 1 scores for 2", 1),
    ],
)
def test_a_service_that_does_not_score_ends_the_run(reply: tuple[int, Any], says: str, tries: int) -> None:
    with service([reply]) as (url, requests), pytest.raises(TrainingStopped, match=says):
        score([url], ["a", "b"])
    assert len(requests) == tries


def test_a_service_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with service([(200, {"rewards": [9]})]) as (proxy, seen), service([(200, {"rewards": [1]})]) as (url, _):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert score([url], ["a"], ROWS[:1]) == [1]
    assert seen == []


def test_a_redirect_of_a_service_is_not_followed() -> None:
    with (
        service([(200, {"rewards": [9]})]) as (other, seen),
        service([(307, {})], to=other) as (url, requests),
        pytest.raises(TrainingStopped, match="HTTP 307"),
    ):
        score([url], ["a"], ROWS[:1])
    assert (len(requests), seen) == (1, [])


@pytest.mark.parametrize("part", ["me:hunter2@", "hunter2@", ""])
def test_a_secret_in_the_url_of_a_service_is_refused_and_not_shown(part: str) -> None:
    with pytest.raises(InputError, match=r"must not hold a user") as raised:
        load_function(f"http://{part}127.0.0.1:9/score{'' if part else '?key=hunter2'}")
    assert "hunter2" not in str(raised.value)


def test_a_service_that_is_not_there_ends_the_run() -> None:
    with service([(200, {})]) as (url, _):
        pass
    with pytest.raises(TrainingStopped, match="3 times"):
        score([url], ["a", "b"])
