"""A chat template that refuses some rows: they are left out in its own words, whatever reads them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import InputError
from datagen_train import dpo, reward, sft
from datagen_train.models.tiny import CHAT_TEMPLATE
from datagen_train.options import DpoOptions
from datagen_train.tools import check, evaluate
from datagen_train.tools.chat import Chat
from datagen_train.tools.evaluate import load_trained
from datagen_train.tools.options import ChatOptions, CheckOptions, EvalOptions
from tests.train.runs import train

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
REASON = "the chat template of the model refuses the messages: System role not supported"
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def strict(fresh: Path, copied: Callable[[Path], Path]) -> str:
    """A model whose template refuses system messages, as Gemma's does."""
    folder = copied(fresh)
    (folder / "chat_template.jinja").write_text(NO_SYSTEM + CHAT_TEMPLATE)
    return str(folder)


def write(name: str, rows: Sequence[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def asks(number: int, system: bool) -> list[dict[str, str]]:
    return [*([SYSTEM] if system else []), {"role": "user", "content": f"Name fruit {number}."}]


def sft_rows(number: int, refused: int) -> str:
    answer = {"role": "assistant", "content": "Pear"}
    return write("rows.jsonl", [{"messages": [*asks(i, i < refused), answer]} for i in range(number)])


def preference_rows(number: int, refused: int) -> str:
    rows = [{"prompt": asks(i, i < refused), "chosen": f"Pear {i}", "rejected": "Stone"} for i in range(number)]
    return write("prefs.jsonl", rows)


def test_sft_trains_on_the_other_rows(strict: str) -> None:
    rows = train(sft, sft_rows(12, refused=3), model=strict, output="out", steps=1, held_out=0.0)["rows"]
    assert (rows["read"], rows["train"], rows["dropped"]) == (12, 9, {REASON: 3})


@pytest.mark.parametrize(("module", "options"), [(dpo, DpoOptions()), (dpo, DpoOptions(loss="kto")), (reward, None)])
def test_preferences_that_are_refused_are_left_out(module: Any, options: Any, strict: str) -> None:
    data = preference_rows(12, refused=3)
    rows = train(module, data, options, model=strict, output="out", steps=1, held_out=0.0)["rows"]
    assert rows["dropped"] == {REASON: 3}


def test_a_file_of_which_every_row_is_refused_says_so(strict: str) -> None:
    with pytest.raises(InputError, match=f"no row is left to train on: 4 dropped: {REASON}"):
        train(sft, sft_rows(4, refused=4), model=strict, output="out", steps=1)
    with pytest.raises(InputError, match=f"no row is left to train on: 4 dropped: {REASON}"):
        check.run("rows.jsonl", CheckOptions(model=strict))
    with pytest.raises(InputError, match=f"no row is left to measure on: 4 dropped: {REASON}"):
        evaluate.run(strict, "rows.jsonl", EvalOptions())


def test_eval_measures_the_other_rows(strict: str) -> None:
    result = evaluate.run(strict, sft_rows(12, refused=3), EvalOptions(max_tokens=4))
    assert (result["rows"], result["answered"], result["dropped"]) == (12, 9, {REASON: 3})


def test_chat_says_it_in_one_line(strict: str) -> None:
    talk = Chat(load_trained(strict, "float32"), ChatOptions(system="Be brief."))
    with pytest.raises(InputError, match=f"^{REASON}$"):
        talk.ask("Hi.")


def test_check_says_what_rows_hold_and_marks_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    call = [{"id": "c0", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": "How warm is it?"},
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "tool", "tool_call_id": "c0", "content": "Seven."},
                {"role": "assistant", "content": "It is 7.", "reasoning_content": "I have looked."},
            ],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        },
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Bad.", "weight": 0}]},
        {"prompt": "Name a river.", "completion": "The Alps.", "label": False},
        {"prompt": "Name a river.", "completion": "The Rhine.", "label": True},
        {"prompt": 7},
    ]
    report = check.run(write("rows.jsonl", rows), CheckOptions(model="tiny", rows=1))
    shown = capsys.readouterr().err.replace("|", "").replace("\\n\n", "\n")
    assert report["rows"]["read"] == 5
    assert report["rows"]["unreadable"] == sum(report["rows"]["problems"].values()) == 1
    assert report["rows"]["dropped"] == {"label false": 1, "nothing to train on (weight 0)": 1}
    assert report["contents"] == {"with reasoning that is trained": 1, "with tools": 1}
    assert "{+<tool_call>" in shown
    assert "{+Seven" not in shown
