"""The layouts of public data sets, with rows of our own: the columns are the real ones, the texts are not."""

import io
import json
from typing import Any

import pytest

from datagen.records.ranked import RANKED, SAMPLES
from datagen.records.reader import PREFERENCES, PROMPTS, Kind, Reader
from datagen.records.record import BadLine, Row

U, A = {"role": "user", "content": "Do."}, {"role": "assistant", "content": "Done."}
B = {"role": "assistant", "content": "No."}
S = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "Do."}, {"from": "gpt", "value": "Done."}
CALL: Row = {"type": "function", "function": {"name": "w", "arguments": '{"t": 1}'}}
ASKS, RESULT = {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "3"}
FUNCTION: Row = {"name": "w", "parameters": {}}


def read_one(kind: Kind[Any], *rows: Row) -> Any:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    item = next(iter(Reader("x.jsonl", io.BytesIO(data), kind).read()))
    assert not isinstance(item, BadLine), item
    return item


SINGLE: dict[str, tuple[Row, Any, str | None, Row]] = {
    "Dolly": (
        {"instruction": "Do.", "context": "Here.", "response": "Done.", "category": "qa"},
        "Do.\n\nHere.",
        "Done.",
        {"category": "qa"},
    ),
    "no_robots": (
        {"prompt": "Do.", "prompt_id": "p", "messages": [S, U, A], "category": "Chat"},
        [S, U],
        "Done.",
        {"prompt_id": "p", "category": "Chat"},
    ),
    "UltraChat 200k": (
        {"prompt": "Do.", "prompt_id": "p", "messages": [U, A, U, B]},
        [U, A, U],
        "No.",
        {"prompt_id": "p"},
    ),
    "UltraChat raw": ({"id": "0", "data": ["Do.", "Done.", "Do.", "No."]}, [U, A, U], "No.", {}),
    "Magpie": (
        {"uuid": "u", "instruction": "Do.", "response": "Done.", "conversations": [HUMAN, GPT], "difficulty": "easy"},
        "Do.",
        "Done.",
        {"uuid": "u", "difficulty": "easy"},
    ),
    "Capybara": (
        {"source": "s", "conversation": [{"input": "Do.", "output": "Done."}, {"input": "Do.", "output": "No."}]},
        [U, A, U],
        "No.",
        {"source": "s"},
    ),
    "LIMA": ({"conversations": ["Do.", "Done."], "source": "s"}, "Do.", "Done.", {"source": "s"}),
    "OpenOrca": (
        {"id": "o", "system_prompt": "Be brief.", "question": "Do.", "response": "Done."},
        [S, U],
        "Done.",
        {},
    ),
    "SlimOrca": (
        {"conversations": [{"from": "system", "value": "Be brief.", "weight": None}, {**HUMAN, "weight": 0.0}, GPT]},
        [S, U],
        "Done.",
        {},
    ),
    "Tulu SFT": ({"id": "t", "messages": [U, A], "source": "s"}, "Do.", "Done.", {"source": "s"}),
    "Tulu RLVR": (
        {"messages": [U], "ground_truth": "1", "dataset": "d"},
        "Do.",
        None,
        {"ground_truth": "1", "dataset": "d"},
    ),
    "OpenHermes": (
        {"conversations": [HUMAN, GPT], "system_prompt": "Be brief.", "source": "s"},
        [S, U],
        "Done.",
        {"source": "s"},
    ),
    "WizardLM": ({"idx": "i", "conversations": [HUMAN, GPT]}, "Do.", "Done.", {"idx": "i"}),
    "HelpSteer2": ({"prompt": "Do.", "response": "Done.", "helpfulness": 3}, "Do.", "Done.", {"helpfulness": 3}),
    "distilabel": (
        {"instruction": "Do.", "generation": "Done.", "model_name": "m"},
        "Do.",
        "Done.",
        {"model_name": "m"},
    ),
    "NuminaMath": (
        {"source": "s", "problem": "Do.", "solution": "Done.", "messages": [U, A]},
        "Do.",
        "Done.",
        {"source": "s"},
    ),
    "GSM8K": ({"question": "Do.", "answer": "So.\n#### 2"}, "Do.", "So.\n#### 2", {}),
    "MATH": (
        {"problem": "Do.", "level": "1", "type": "t", "solution": "Done."},
        "Do.",
        "Done.",
        {"level": "1", "type": "t"},
    ),
    "MATH-500": ({"problem": "Do.", "solution": "Done.", "answer": "2"}, "Do.", "Done.", {"answer": "2"}),
    "SVAMP": ({"Body": "Two.", "Question": "Do.", "Answer": 2.0}, "Two.\n\nDo.", None, {"Answer": 2.0}),
    "medical o1": (
        {"Question": "Do.", "Complex_CoT": "Hm.", "Response": "Done."},
        "Do.",
        "Done.",
        {},
    ),
    "ARC": (
        {"id": "m", "question": "Do.", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        "Do.\nA. x\nB. y",
        "B. y",
        {"answer": "B"},
    ),
    "MMLU": (
        {"question": "Do.", "subject": "s", "choices": ["x", "y", "z"], "answer": 2},
        "Do.\nA. x\nB. y\nC. z",
        "C. z",
        {"subject": "s", "answer": "C"},
    ),
    "MedQA": (
        {"question": "Do.", "options": {"A": "x", "B": "y"}, "answer_idx": "A", "answer": "x"},
        "Do.\nA. x\nB. y",
        "A. x",
        {"answer": "A"},
    ),
    "SciQ": (
        {
            "question": "Do.",
            "distractor3": "c",
            "distractor1": "a",
            "distractor2": "d",
            "correct_answer": "b",
            "support": "S.",
        },
        "S.\n\nDo.\nA. a\nB. b\nC. c\nD. d",
        "B. b",
        {"answer": "B"},
    ),
    "Firefly": ({"kind": "NLI", "input": "Do.", "target": "Done."}, "Do.", "Done.", {"kind": "NLI"}),
    "P3": ({"inputs": "Do.", "targets": "Done."}, "Do.", "Done.", {}),
    "Natural Instructions": (
        {"Definition": ["Do."], "Positive Examples": [], "Instances": [{"id": "i", "input": "x", "output": ["Done."]}]},
        "Do.\n\nx",
        "Done.",
        {"Positive Examples": []},
    ),
    "Alpaca without input": ({"instruction": "Do.", "input": "<noinput>", "output": "Done."}, "Do.", "Done.", {}),
    "question with context": ({"context": "Here.", "question": "Do.", "answer": "Done."}, "Here.\n\nDo.", "Done.", {}),
    "instruction with question": (
        {"instruction": "Read.", "question": "Do.", "answer": "Done."},
        "Read.\n\nDo.",
        "Done.",
        {},
    ),
    "a prompt and its answer": ({"prompt": "Do.", "answer": "2"}, "Do.", "2", {"answer": "2"}),
    "Argilla records": (
        {
            "id": "0",
            "fields": {"prompt": "Do.", "response": "Done."},
            "responses": {"q": [{"value": 5}]},
            "status": "s",
        },
        "Do.",
        "Done.",
        {"source_responses": {"q": [{"value": 5}]}, "status": "s"},
    ),
    "OpenAI with parts": (
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {**U, "content": [{"type": "text", "text": "Do"}, {"type": "text", "text": "it."}]},
                A,
            ]
        },
        [S, {**U, "content": "Do\nit."}],
        "Done.",
        {},
    ),
    "OpenAI with tools": (
        {"messages": [U, {**ASKS, "content": None}, RESULT, A], "tools": [{"type": "function", "function": FUNCTION}]},
        [U, ASKS, RESULT],
        "Done.",
        {},
    ),
    "an older call of OpenAI": (
        {"messages": [U, {**A, "content": None, "function_call": CALL["function"]}, {**RESULT, "role": "function"}, A]},
        [U, ASKS, RESULT],
        "Done.",
        {},
    ),
    "LLaMA-Factory with tools": (
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": json.dumps({"name": "w", "arguments": {"t": 1}})},
                {"from": "observation", "value": "3"},
                GPT,
            ],
            "tools": json.dumps([FUNCTION]),
        },
        [U, ASKS, RESULT],
        "Done.",
        {},
    ),
    "Hermes, with calls in the text": (
        {
            "conversations": [
                HUMAN,
                {"from": "gpt", "value": "<tool_call>\n{}\n</tool_call>"},
                {"from": "tool", "value": "3"},
                GPT,
            ]
        },
        [U, {**A, "content": "<tool_call>\n{}\n</tool_call>"}, RESULT],
        "Done.",
        {},
    ),
    "SQuAD": (
        {"id": "q", "title": "T", "context": "Here.", "question": "Do.", "answers": {"text": ["Done."]}},
        "Here.\n\nDo.",
        "Done.",
        {"title": "T"},
    ),
    "an open transcript": (
        {"prompt": "\n\nHuman: Do.\n\nAssistant: Done.\n\nHuman: Do.\n\nAssistant:"},
        [U, A, U],
        None,
        {},
    ),
    "OASST tree": (
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "Do.",
                "role": "prompter",
                "replies": [
                    {"text": "No.", "role": "assistant", "rank": 1},
                    {"text": "Done.", "role": "assistant", "rank": 0},
                ],
            },
        },
        "Do.",
        "Done.",
        {},
    ),
}


@pytest.mark.parametrize(("row", "prompt", "response", "extra"), SINGLE.values(), ids=SINGLE)
def test_a_public_row_is_read_whole(row: Row, prompt: Any, response: str | None, extra: Row) -> None:
    record = read_one(PROMPTS, row)
    assert (record.prompt, record.response, record.extra) == (prompt, response, extra)


def test_what_a_message_holds_stays_with_it() -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    record = read_one(
        PROMPTS, {"messages": [U, {**B, "weight": 0, "thinking": "Hm."}, U, ASKS], "functions": [FUNCTION]}
    )
    assert record.prompt[1] == {**B, "weight": 0, "reasoning_content": "Hm."}
    assert (record.response, record.response_fields, list(record.tools)) == ("", {"tool_calls": [CALL]}, tools)
    record = read_one(PROMPTS, {"messages": [U, {**A, "reasoning_content": "Hm.", "train": False, "name": "n"}]})
    assert (record.reasoning, record.response_fields) == ("Hm.", {"name": "n", "weight": 0})
    assert read_one(PROMPTS, {"Question": "Do.", "Complex_CoT": "Hm.", "Response": "Done."}).reasoning == "Hm."


def test_answers_that_are_calls_are_calls() -> None:
    calls = json.dumps([{"name": "w", "arguments": {"t": 1}}])
    record = read_one(PROMPTS, {"id": 0, "query": "Do.", "answers": calls, "tools": json.dumps([FUNCTION])})
    assert (record.prompt, record.response, record.response_fields) == ("Do.", "", {"tool_calls": [CALL]})


def test_a_label_belongs_to_the_answer() -> None:
    assert read_one(PROMPTS, {"prompt": "Do.", "completion": "No.", "label": False}).label is False
    assert read_one(PROMPTS, {"prompt": [U], "completion": [A], "label": True}).label is True
    assert read_one(PROMPTS, {"conversations": [HUMAN, GPT], "kto_tag": False}).label is False
    assert read_one(PROMPTS, {"prompt": "Do.", "response": "No.", "label": "sad"}).label is None


TWO: dict[str, Row] = {
    "TRL": {"prompt": [U], "chosen": [A], "rejected": [B]},
    "Tulu": {"id": "t", "prompt": "Do.", "chosen": [U, A], "rejected": [U, B], "chosen_model": "m"},
    "UltraFeedback binarised": {
        "prompt": "Do.",
        "chosen": [U, A],
        "rejected": [U, B],
        "messages": [U, A],
        "score_chosen": 8,
    },
    "Argilla": {"instruction": "Do.", "chosen_response": "Done.", "rejected_response": "No."},
    "LLaMA-Factory": {"instruction": "Do.", "input": "", "chosen": "Done.", "rejected": "No."},
    "LLaMA-Factory, ShareGPT": {"conversations": [HUMAN], "chosen": GPT, "rejected": {**GPT, "value": "No."}},
    "MedicalGPT": {"conversations": [HUMAN], "chosen": "Done.", "rejected": "No."},
    "MedicalGPT before": {
        "system": "",
        "history": [],
        "question": "Do.",
        "response_chosen": "Done.",
        "response_rejected": "No.",
    },
    "OpenAI": {
        "input": {"messages": [U], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [A],
        "non_preferred_output": [B],
    },
    "axolotl": {"messages": [U], "chosen": A, "rejected": B},
    "orca pairs": {"system": "", "question": "Do.", "chosen": "Done.", "rejected": "No."},
    "RewardBench": {"prompt": "Do.", "chosen": "Done.", "chosen_model": "a", "rejected": "No.", "id": 0},
    "HH": {"chosen": "\n\nHuman: Do.\n\nAssistant: Done.", "rejected": "\n\nHuman: Do.\n\nAssistant: No."},
    "HH in a prompt": {
        "prompt": "\n\nHuman: Do.\n\nAssistant:",
        "response": "Done.",
        "chosen": "Done.",
        "rejected": "No.",
    },
    "stack-exchange": {
        "qid": 1,
        "question": "Do.",
        "date": "d",
        "metadata": [],
        "response_j": "Done.",
        "response_k": "No.",
    },
    "PKU-SafeRLHF": {"prompt": "Do.", "response_0": "No.", "response_1": "Done.", "better_response_id": 1},
    "SHP": {"post_id": "p", "history": "Do.", "human_ref_A": "No.", "human_ref_B": "Done.", "labels": 0, "score_A": 1},
    "HelpSteer3": {"context": [U], "response1": "Done.", "response2": "No.", "overall_preference": -2},
    "WebGPT": {
        "question": {"full_text": "Do."},
        "answer_0": "Done.",
        "score_0": 1.0,
        "answer_1": "No.",
        "score_1": -1.0,
    },
    "arena": {"model_a": "a", "model_b": "b", "winner": "model_b", "conversation_a": [U, B], "conversation_b": [U, A]},
    "arena responses": {"prompt": "Do.", "response_a": "Done.", "response_b": "No.", "winner": "model_a"},
    "AlpacaEval": {"instruction": "Do.", "output_1": "No.", "output_2": "Done.", "preference": 2},
    "Label Studio": {
        "id": 0,
        "data": {"prompt": "Do.", "answer1": "Done.", "answer2": "No."},
        "annotations": [{"id": 1, "result": [{"type": "pairwise", "value": {"selected": "left"}}]}],
    },
    "OASST tree": SINGLE["OASST tree"][0],
}


@pytest.mark.parametrize("row", TWO.values(), ids=TWO)
def test_two_public_answers_are_a_preference_and_ranked(row: Row) -> None:
    pair = read_one(PREFERENCES, row)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Do.", "Done.", "No.")
    for kind in (RANKED, SAMPLES):
        ranked = read_one(kind, row)
        best = sorted(zip(ranked.ranks, ranked.responses, strict=True))
        assert (ranked.prompt, [text for _, text in best]) == ("Do.", ["Done.", "No."])


def test_a_tie_is_ranked_and_no_preference() -> None:
    row = {"prompt": "Do.", "response_a": "Done.", "response_b": "No.", "winner": "tie"}
    assert read_one(RANKED, row).ranks == (1, 1)
    (bad,) = Reader("x.jsonl", io.BytesIO(json.dumps(row).encode()), PREFERENCES).read()
    assert isinstance(bad, BadLine)
    assert "a tie is no preference" in bad.reason


MANY: dict[str, tuple[Row, tuple[int, ...], tuple[float, ...] | None]] = {
    "UltraFeedback": (
        {
            "instruction": "Do.",
            "models": ["a"],
            "completions": [
                {"model": "a", "response": "No.", "overall_score": 2.0},
                {"model": "b", "response": "Done.", "overall_score": 8},
            ],
        },
        (2, 1),
        (2.0, 8.0),
    ),
    "Nectar": (
        {
            "prompt": "\n\nHuman: Do.\n\nAssistant: ",
            "answers": [{"answer": "No.", "model": "a", "rank": 2.0}, {"answer": "Done.", "model": "b", "rank": 1.0}],
        },
        (2, 1),
        None,
    ),
    "stack-exchange answers": (
        {"qid": 1, "question": "Do.", "answers": [{"text": "No.", "pm_score": 0}, {"text": "Done.", "pm_score": 3}]},
        (2, 1),
        (0.0, 3.0),
    ),
    "distilabel": ({"instruction": "Do.", "generations": ["No.", "Done."], "ratings": [2, 5]}, (2, 1), (2.0, 5.0)),
    "scores as text": ({"prompt": "Do.", "responses": ["No.", "Done."], "scores": ["2", "5.5"]}, (2, 1), (2.0, 5.5)),
    "ranks of pandas": ({"prompt": "Do.", "responses": ["No.", "Done."], "ranks": [2.0, 1.0]}, (2, 1), None),
    "TL;DR": (
        {
            "info": {"id": "t3", "post": "P.", "title": "T", "subreddit": "r"},
            "choice": 1,
            "summaries": [{"text": "No."}, {"text": "Done."}],
        },
        (2, 1),
        None,
    ),
}


@pytest.mark.parametrize(("row", "ranks", "scores"), MANY.values(), ids=MANY)
@pytest.mark.parametrize("kind", [RANKED, SAMPLES], ids=["ranked", "samples"])
def test_several_public_answers_keep_their_ranks(
    kind: Kind[Any], row: Row, ranks: tuple[int, ...], scores: tuple[float, ...] | None
) -> None:
    item = read_one(kind, row)
    assert (item.responses, item.ranks, item.scores or None) == (("No.", "Done."), ranks, scores)
    expected = "SUBREDDIT: r/r\n\nTITLE: T\n\nPOST: P.\n\nTL;DR:" if "summaries" in row else "Do."
    assert item.prompt == expected


FLAT: list[Row] = [
    {"message_id": "r", "parent_id": None, "text": "Do.", "role": "prompter", "rank": None, "message_tree_id": "r"},
    {"message_id": "a", "parent_id": "r", "text": "No.", "role": "assistant", "rank": 1, "message_tree_id": "r"},
    {"message_id": "b", "parent_id": "r", "text": "Done.", "role": "assistant", "rank": 0, "message_tree_id": "r"},
    {"message_id": "c", "parent_id": "b", "text": "Do.", "role": "prompter", "rank": 0, "message_tree_id": "r"},
    {"message_id": "d", "parent_id": "c", "text": "No.", "role": "assistant", "rank": None, "message_tree_id": "r"},
]


def test_messages_that_name_their_parents_are_threads() -> None:
    record = read_one(PROMPTS, *FLAT)
    assert (record.prompt, record.response, record.source_id) == ([U, A, U], "No.", "r")
    assert read_one(PROMPTS, *reversed(FLAT)).prompt == record.prompt
    ranked = read_one(RANKED, *FLAT)
    assert (ranked.prompt, ranked.responses, ranked.ranks) == ("Do.", ("Done.", "No."), (1, 2))


def test_a_message_without_its_parent_is_a_bad_line() -> None:
    data = b"".join(
        json.dumps(row).encode() + b"\n" for row in [*FLAT, {**FLAT[1], "message_id": "x", "parent_id": "y"}]
    )
    items = list(Reader("x.jsonl", io.BytesIO(data), PROMPTS).read())
    assert [str(item) for item in items if isinstance(item, BadLine)] == ["x.jsonl:6: its parent y is not in the file"]


def test_texts_without_speakers_are_not_taken_for_two_speakers() -> None:
    row = {"question_id": 81, "category": "writing", "turns": ["Do.", "Do it again."]}
    data = io.BytesIO(json.dumps(row).encode())
    (bad,) = Reader("x.jsonl", data, PROMPTS).read()
    assert isinstance(bad, BadLine)
    assert bad.reason.endswith("to read the first: --map prompt=turns.0")
    (record,) = Reader("x.jsonl", data, PROMPTS, mapping={"prompt": "turns.0"}).read()
    assert not isinstance(record, BadLine)
    assert record.prompt == "Do."


def test_an_answer_that_nobody_gave_is_not_read() -> None:
    for row in ({"question": "Do.", "answer": 3}, {"prompt": "Do.", "target": 3}, {"prompt": "Do.", "answer": None}):
        assert read_one(PROMPTS, row).response is None
