"""What a model thought stands in the rows beside its answer, as --reasoning says, and nowhere else."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datagen.commands.table import load_methods
from datagen.errors import InputError, Stopped
from datagen.generators.backtranslate import Backtranslate
from datagen.generators.constraints import Constraints
from datagen.generators.evolve import Evolve
from datagen.llm.call import Call, Reply
from datagen.llm.model import Model, Roles, call_key
from datagen.llm.sim.think import reasoning_of
from datagen.records.files import dump_line, open_input
from datagen.records.reader import PREFERENCES, PROMPTS, Reader, kind_of_row
from datagen.records.record import Prompt, Record, Row
from tests.datagen.test_backtranslate import corpus
from tests.datagen.test_improve import answers, improve
from tests.jobs import digest, perform, respond, rows, write_seeds
from tests.server import Server, running
from tests.spellings import SPELLINGS

Answer = Callable[[str, list[dict[str, str]], int, str], Any]


def thought_of(text: str) -> str:
    return f"Let me think.\nI will say: {text}\n\nThat is right."


def thinking(spelling: str, thinks: Callable[[int], bool] = lambda sample: True) -> Answer:
    """Return the answers of a model that thinks about each answer, in a spelling."""

    def answer(model: str, messages: list[dict[str, str]], sample: int, task: str) -> Any:
        text = f"This is answer {sample} to: {messages[-1]['content']}"
        return SPELLINGS[spelling](thought_of(text), text) if thinks(sample) else text

    return answer


def answered(row: Row) -> list[tuple[str, str]]:
    """Return each answer of a row of a run with `thinking`, as it should be, with its reasoning."""
    answers = row.get("responses") or [row["response"]]
    reasonings = row["reasoning"] if "responses" in row else [row["reasoning"]]
    return list(zip(answers, reasonings, strict=True))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_row_holds_the_answer_and_the_thought_in_every_spelling(spelling: str) -> None:
    seeds, k = write_seeds(5), 1 + len(spelling) % 2
    with running(Server(answer=thinking(spelling))) as server:
        for concurrency in ("1", "16"):
            respond(seeds, f"m@{server.url}", f"{concurrency}/out.jsonl", k=k, concurrency=concurrency)
    assert digest("1/out.jsonl") == digest("16/out.jsonl")
    assert len(rows("1/out.jsonl")) == 5
    for row in rows("1/out.jsonl"):
        texts = [f"This is answer {sample} to: {row['prompt']}" for sample in range(k)]
        assert answered(row) == [(text, thought_of(text)) for text in texts]


def test_recorded_replies_are_read_again_for_another_choice_at_no_cost() -> None:
    seeds = write_seeds(4)
    with running(Server(answer=thinking("think"))) as server:
        respond(seeds, f"m@{server.url}", reasoning="drop")
        assert all("reasoning" not in row and "think" not in row["response"] for row in rows("out.jsonl"))
        sent = server.requests
        respond(seeds, f"m@{server.url}", overwrite=True)
        assert server.requests == sent == 4
    assert json.loads(Path("out.meta.json").read_text())["result"]["fingerprint"]["reasoning"] == "keep"
    assert [row["reasoning"] for row in rows("out.jsonl")] == [thought_of(row["response"]) for row in rows("out.jsonl")]


def test_the_choice_changes_nothing_else_in_the_rows() -> None:
    seeds = write_seeds(4)
    for choice in ("keep", "drop", "only"):
        perform(Evolve, seeds, "sim:think=1", f"{choice}.jsonl", Evolve.options_type(rounds=2, reasoning=choice))
    kept = rows("keep.jsonl")
    assert rows("only.jsonl") == kept
    assert rows("drop.jsonl") == [{name: value for name, value in row.items() if name != "reasoning"} for row in kept]


def test_only_rejects_rows_with_an_answer_that_came_without_reasoning() -> None:
    seeds = write_seeds(3)
    with running(Server(answer=thinking("think", lambda sample: sample == 0))) as server:
        one = respond(seeds, f"m@{server.url}", "one.jsonl", reasoning="only")
        two = respond(seeds, f"m@{server.url}", "two.jsonl", reasoning="only", k=2)
        respond(seeds, f"m@{server.url}", "keep.jsonl", k=2)
    assert (one.result["funnel"]["kept"], two.result["funnel"]["kept"]) == (3, 0)
    assert two.result["funnel"]["rejected"] == {"no_reasoning": 3}
    assert [row["record"]["responses"] for row in rows("two.rejected.jsonl")] == [
        row["responses"] for row in rows("keep.jsonl")
    ]
    assert [row["reasoning"][1] for row in rows("keep.jsonl")] == [None] * 3


def test_a_row_has_no_reasoning_where_nothing_was_thought() -> None:
    respond(write_seeds(2), "sim", "one.jsonl")
    respond(write_seeds(2), "sim", "two.jsonl", k=2)
    assert not [row for row in (*rows("one.jsonl"), *rows("two.jsonl")) if "reasoning" in row]


QUESTIONS = [
    {"prompt": f"Compute {n} * 3 + {n}.", "answer": str(4 * n), "response": f"Answer: {4 * n}"} for n in (2, 5)
]


@pytest.mark.parametrize("strategy", ["direct", "cot", "vote", "rft", "star", "tree"])
def test_every_strategy_keeps_the_thought_of_the_answer_that_it_writes(strategy: str) -> None:
    Path("questions.jsonl").write_bytes(b"".join(map(dump_line, QUESTIONS)))
    options = {"task": "text"} if strategy == "tree" else {}
    respond(Path("questions.jsonl"), "sim:think=1", strategy=strategy, **options)
    written = rows("out.jsonl")
    assert written
    assert [row["reasoning"] for row in written] == [reasoning_of(row["response"]) for row in written]


def texts_of(row: Row) -> list[tuple[str, Any]]:
    """Return the answers of a row of any kind, each with its reasoning."""
    if "chosen" in row:
        return [(row[name], row.get(f"{name}_reasoning")) for name in ("chosen", "rejected")]
    return [(row["response"], row.get("reasoning"))]


@pytest.mark.parametrize("variant", ["edit", "critique", "constitution", "rewrite"])
def test_an_answer_that_stays_keeps_its_thought_and_a_new_one_has_its_own(variant: str) -> None:
    improve(answers(12, 1.0), variant, "sim:skill=0.8,think=1")
    new = [row for row in rows("out.jsonl") if row["meta"]["accepted"]]
    assert 0 < len(new) < 12
    assert [row["reasoning"] for row in new] == [reasoning_of(row["response"]) for row in new]
    assert not [row for row in rows("out.jsonl") if not row["meta"]["accepted"] and "reasoning" in row]
    improve(Path("answers.jsonl"), variant, "sim:skill=0.8,think=1", "pairs.jsonl", pairs=True)
    assert [row["chosen_reasoning"] for row in rows("pairs.jsonl")] == [row["reasoning"] for row in new]


def test_what_stands_beside_an_answer_stays_with_it_and_not_with_a_new_one() -> None:
    beside = {"reasoning": "Short is good.", "weight": 0, "label": False}
    Path("in.jsonl").write_bytes(b"".join(dump_line({**row, **beside}) for row in rows(answers(12, 1.0))))
    improve(Path("in.jsonl"), "edit", "sim:skill=0.8")
    for row in rows("out.jsonl"):
        kept = {name: row[name] for name in beside if name in row}
        assert kept == ({} if row["meta"]["accepted"] else beside)
    assert {row["meta"]["accepted"] for row in rows("out.jsonl")} == {True, False}


@pytest.mark.parametrize("pairs", [False, True])
def test_answers_to_prompts_with_constraints_have_their_thoughts(pairs: bool) -> None:
    options = Constraints.options_type(most=2, pairs=pairs)
    perform(Constraints, write_seeds(60), "sim:think=1", "out.jsonl", options)
    written = [pair for row in rows("out.jsonl") for pair in texts_of(row)]
    assert written
    assert [reasoning for _, reasoning in written] == [reasoning_of(answer) for answer, _ in written]


def test_the_text_of_a_corpus_has_no_thought_and_a_rewritten_one_has() -> None:
    for rewrite in (False, True):
        options = Backtranslate.options_type(rewrite=rewrite, threshold=0)
        perform(Backtranslate, corpus(4), "sim:think=1", "out.jsonl", options, overwrite=True)
        augmented = [row for row in rows("out.jsonl") if row["meta"]["op"] == "augmented"]
        expected = [reasoning_of(row["response"]) if rewrite else None for row in augmented]
        assert [row.get("reasoning") for row in augmented] == expected
    with pytest.raises(InputError, match="--reasoning only needs --rewrite"):
        perform(Backtranslate, corpus(4), "sim", "out.jsonl", Backtranslate.options_type(reasoning="only"))


def test_the_thoughts_of_earlier_turns_stand_in_the_conversation() -> None:
    method = load_methods("magpie")[""]
    for choice in ("keep", "drop"):
        options = method.options_type(turns=2, reasoning=choice)
        perform(method, None, "sim:think=1", f"{choice}.jsonl", options, n=2)
    for row, dropped in zip(rows("keep.jsonl"), rows("drop.jsonl"), strict=True):
        first = row["prompt"][1]
        assert first["reasoning_content"] == reasoning_of(first["content"])
        assert row["reasoning"] == reasoning_of(row["response"])
        assert dropped["prompt"] == [{"role": turn["role"], "content": turn["content"]} for turn in row["prompt"]]
        assert (dropped["id"], dropped["response"]) == (row["id"], row["response"])
        assert "reasoning" not in dropped


def test_judges_see_the_answers_alone_and_each_thought_stays_with_its_answer() -> None:
    respond(write_seeds(24), "sim:think=0.7", "samples.jsonl", k=4, temperature=1.0)
    samples = [row for row in rows("samples.jsonl") if "reasoning" in row]
    Path("samples.jsonl").write_bytes(b"".join(map(dump_line, samples)))
    for name in ("compare", "score", "rank"):
        method = load_methods("judge")[name]
        perform(method, Path("samples.jsonl"), "sim:skill=0.6", f"{name}.jsonl", method.options_type())
        ranked = rows(f"{name}.jsonl")
        assert [row["responses"] for row in ranked] != [row["responses"] for row in samples]
        for row, before in zip(ranked, samples, strict=True):
            pairs = sorted(zip(row["responses"], map(str, row["reasoning"]), strict=True))
            assert pairs == sorted(zip(before["responses"], map(str, before["reasoning"]), strict=True))
        method = load_methods("pairs")["best_worst"]
        options = method.options_type(near=1.1, weak_judge=True)
        perform(method, Path(f"{name}.jsonl"), "sim", f"{name}.pairs.jsonl", options)
        thoughts = [pair for row in rows(f"{name}.pairs.jsonl") for pair in texts_of(row)]
        assert any(reasoning for _, reasoning in thoughts)
        assert kind_of_row(rows(f"{name}.pairs.jsonl")[0]) is PREFERENCES
        assert all(reasoning in (None, reasoning_of(answer)) for answer, reasoning in thoughts)


@pytest.mark.parametrize("name", ["compare", "score", "rank"])
def test_no_judge_is_shown_what_was_thought(name: str) -> None:
    respond(write_seeds(2), "sim:think=1", "samples.jsonl", k=2, temperature=1.0)
    shown: list[str] = []

    def judge(model: str, messages: list[dict[str, str]], sample: int, task: str) -> str:
        shown.append(json.dumps(messages))
        return "It is hard to say."

    method = load_methods("judge")[name]
    with running(Server(answer=judge)) as server:
        perform(method, Path("samples.jsonl"), f"j@{server.url}", "out.jsonl", method.options_type())
    answer = rows("samples.jsonl")[0]["responses"][0]
    assert any(answer in text for text in shown)
    assert not any("Let me think" in text for text in shown)


class Wire:
    """The innermost layer: keeps a call and sends none."""

    call: Call

    async def send(self, call: Call) -> Reply:
        self.call = call
        raise Stopped


def test_a_model_is_not_sent_what_was_thought_before_or_what_is_for_training() -> None:
    tools = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    plain: list[dict[str, Any]] = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": "", "tool_calls": tools},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
    ]
    rich = [plain[0], {**plain[1], "reasoning_content": "I add.", "weight": 0}, plain[2]]
    wire = Wire()
    roles = Roles({"teacher": [Model("m", wire)]}, Record("0" * 16, rich), {})
    with pytest.raises(Stopped):
        asyncio.run(roles.chat("teacher", Prompt(rich, "answer", {})))
    assert wire.call.messages == plain
    assert wire.call.key == call_key("m", plain, {}, 0)


def test_recorded_replies_may_hold_reasoning() -> None:
    lines: list[Row] = [
        {"prompt": "A?", "responses": ["one", "two"], "reasoning": ["first", None]},
        {"prompt": "B?", "response": "three", "reasoning": "third"},
        {"prompt": "B?", "response": "four"},
    ]
    Path("replies.jsonl").write_bytes(b"".join(map(dump_line, lines)))
    Path("in.jsonl").write_bytes(b"".join(dump_line({"prompt": prompt}) for prompt in ("A?", "B?")))
    respond(Path("in.jsonl"), "replay:replies.jsonl", k=2)
    assert [row["reasoning"] for row in rows("out.jsonl")] == [["first", None], ["third", None]]
    respond(Path("in.jsonl"), "replay:out.jsonl", "again.jsonl", k=2)
    assert [answered(row) for row in rows("again.jsonl")] == [answered(row) for row in rows("out.jsonl")]


@pytest.mark.parametrize("reasoning", ["both", ["one"], ["one", 2], 3, {"a": "b"}])
def test_recorded_reasoning_that_does_not_fit_its_replies_is_refused(reasoning: object) -> None:
    line = {"prompt": "A?", "responses": ["one", "two"], "reasoning": reasoning}
    Path("replies.jsonl").write_bytes(dump_line(line))
    with pytest.raises(InputError, match=r"replies\.jsonl:1"):
        respond(write_seeds(1), "replay:replies.jsonl")


def test_values_of_the_chat_template_are_sent_to_every_role_and_are_part_of_the_key() -> None:
    requests: list[Row] = []

    def note(request: Row) -> None:
        requests.append(request)

    values = '{"enable_thinking": false}'
    with running(Server(refuse=note)) as server:
        for kwargs in (None, values, values):
            options = Evolve.options_type(rounds=1)
            perform(Evolve, write_seeds(2), f"m@{server.url}", "out.jsonl", options, chat_template_kwargs=kwargs)
    halves = requests[: len(requests) // 2], requests[len(requests) // 2 :]
    assert {request.get("chat_template_kwargs") is None for request in halves[0]} == {True}
    assert [request["chat_template_kwargs"] for request in halves[1]] == [{"enable_thinking": False}] * len(halves[0])
    with pytest.raises(InputError, match="expected a JSON object"):
        perform(Evolve, write_seeds(2), "sim", "out.jsonl", Evolve.options_type(), chat_template_kwargs="off")


def test_a_row_with_tools_asks_with_them_and_keeps_the_calls() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    requests: list[Row] = []

    def answer(model: str, messages: list[dict[str, str]], sample: int, task: str) -> Any:
        return {"content": "", "tool_calls": calls, "reasoning_content": "I should add."}

    with running(Server(answer=answer, refuse=lambda request: requests.append(request))) as server:
        Path("in.jsonl").write_bytes(dump_line({"prompt": "Add 2.", "tools": tools}))
        respond(Path("in.jsonl"), f"m@{server.url}")
        (row,) = rows("out.jsonl")
        assert (row["response"], row["tool_calls"], row["tools"], row["reasoning"]) == (
            "",
            calls,
            tools,
            "I should add.",
        )
        assert requests[0]["tools"] == tools
        Path("plain.jsonl").write_bytes(dump_line({"prompt": "Add 2."}))
        outcome = respond(Path("plain.jsonl"), f"m@{server.url}", "plain.out.jsonl")
        assert outcome.result["funnel"]["failed"] == {"empty answer": 1}
    with open_input("out.jsonl") as file:
        (record,) = Reader("out.jsonl", file, PROMPTS).read()
    assert isinstance(record, Record)
    answer_message = {"role": "assistant", "content": "", "reasoning_content": "I should add.", "tool_calls": calls}
    assert (record.messages[-1], list(record.tools)) == (answer_message, tools)


def test_evolve_leaves_a_conversation_alone_that_goes_on_after_its_request() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "Add 2 and 2."},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    Path("in.jsonl").write_bytes(dump_line({"prompt": messages}))
    outcome = perform(Evolve, Path("in.jsonl"), "sim", "out.jsonl", Evolve.options_type(rounds=3))
    assert (outcome.result["funnel"]["rejected"], outcome.run["requests"]) == ({"after_tools": 1}, 0)
