"""Hostile replies end no run: every candidate is accounted for, and no reader raises what it does not declare."""

import json
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest

import datagen
from datagen.commands.table import load_methods
from datagen.engine.method import Method
from datagen.llm.call import BadAnswer, read_reply
from datagen.records.files import dump_line
from tests.datagen.test_bounds import CASES
from tests.datagen.test_meta import INPUTS, OPTIONS, ROW, TEXT
from tests.hostile import hostile
from tests.jobs import perform, rows
from tests.readers import body, quietly, readers
from tests.server import WORDS, Server, request_key, running
from tests.test_linear import modules

REPLIES = 1_000


def answer(model: str, messages: list[dict[str, str]], sample: int, task: str) -> str:
    """Return a hostile reply. A run of Self-Instruct ends at one that cannot be read, so some of its lines are good."""
    random = Random(request_key(model, messages, sample))
    if task == "self_instruct/classification":
        return random.choice(("Yes", "No"))
    if not task.startswith("self_instruct/"):
        return hostile(random)
    texts = [" ".join(hostile(random).split()).encode(errors="replace").decode() for _ in range(3)]
    lines = (json.dumps({"instruction": sentence(random), "input": text, "output": f"a {text}."}) for text in texts)
    return "\n".join((*lines, texts[0]))


def sentence(random: Random) -> str:
    return f"{' '.join(random.choices(WORDS, k=12)).capitalize()}."


def write_input(method: type[Method]) -> Path | None:
    """Write REPLIES different rows."""
    random = Random(method.name)
    row = INPUTS.get(method.name, ROW)
    for_each = "text" if method.name == "backtranslate" else "prompt"
    more = {"text": TEXT} if method.variant == "mcr" else {}
    lines = (
        dump_line(row | more | {for_each: f"# Canal {n}\n\n{' '.join(sentence(random) for _ in range(14))}"})
        for n in range(REPLIES)
    )
    Path("input.jsonl").write_bytes(b"".join(lines))
    return Path("input.jsonl") if method.reads_input else None


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), CASES, ids=lambda value: str(getattr(value, "variant", value)))
def test_a_thousand_hostile_replies_end_no_run_and_lose_no_candidate(
    method: type[Method], options: dict[str, Any]
) -> None:
    if method.name == "magpie":
        pytest.skip("its model writes tokens in this process")
    path = write_input(method)
    usual = {"allow_self": True, "budget": 40}  # a budget of hundreds leaves no place below the cap
    names = {field.name for field in fields(method.options_type)}
    chosen = {name: value for name, value in usual.items() if name in names}
    chosen |= {**OPTIONS.get(method.variant, {}), **options}
    with running(Server(answer=answer)) as server:
        outcome = perform(
            method, path, f"m@{server.url}", "out.jsonl", method.options_type(**chosen),
            n=4 * REPLIES if method.endless else None, max_calls=REPLIES, max_failed=10**6, timeout=30,
        )  # fmt: skip
    assert server.requests >= 0.8 * REPLIES
    funnel = outcome.result["funnel"]
    dropped = sum(funnel["rejected"].values()) + sum(funnel["failed"].values())
    assert funnel["asked"] == funnel["kept"] + dropped
    assert (len(rows("out.jsonl")), len(rows("out.rejected.jsonl"))) == (funnel["kept"], dropped)


@pytest.mark.slow
def test_no_reader_raises_what_it_does_not_declare() -> None:
    random = Random(1)
    texts = [hostile(random) for _ in range(REPLIES)]
    for name, function in readers(modules(datagen)).items():
        read = quietly(function)
        for text in texts[:: 1 if name.startswith(("judge", "parse", "strategies", "generators")) else 10]:
            try:
                read(text)
            except Exception as error:
                raise AssertionError(f"{name}: {text[:100]!r} ({len(text)} characters)") from error


def test_half_a_character_and_a_number_of_five_thousand_digits_are_bad_answers() -> None:
    for text in ("\ud800", "9" * 5000, "[" * 100_000):
        with pytest.raises(BadAnswer):
            read_reply(body(text), lambda text: json.loads(text) and int(text))


def test_a_line_of_underscores_from_a_judge_is_unread_at_once() -> None:
    method = load_methods("judge")["score"]
    Path("input.jsonl").write_bytes(dump_line(INPUTS["judge"]))
    with running(Server(answer=lambda *_: f"I compared both.\n{'_' * 10_000}\n")) as server:
        outcome = perform(method, Path("input.jsonl"), f"m@{server.url}", "out.jsonl", method.options_type())
    assert outcome.result["funnel"]["rejected"] == {"judge_unparsed": 1}
