"""Recorded replies as a model: `replay:FILE`.

A line of the file holds the replies to one prompt, one for each sample:

    {"prompt": "What is 2 + 3?", "responses": ["2 + 3 = 5. The answer is 5.", "It is 6."]}
    {"task": "tree/value", "fields": {"state": "1 4 6"}, "responses": ["impossible"]}

A line without a task replies where a prompt is to be answered, directly or by chain of thought. A line with a task (the
name of a template) replies to that template where it is filled with these fields. A request that is not recorded is
refused, so a run reports what is missing and asks no other model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.errors import InputError
from datagen.llm.call import Call, Reply, refusal
from datagen.records.files import open_input
from datagen.records.lines import json_lines
from datagen.records.record import Row, digest
from datagen.text import count_words

ANSWERING = frozenset(("answer", "cot/reason"))
"""Tasks that ask for the answer to a prompt."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The innermost layer of a `replay:` model."""

    name: str
    replies: Mapping[str, list[str]]
    """By the digest of task and fields."""
    field_names: Mapping[str, Sequence[tuple[str, ...]]]
    """Task to the sets of fields that its lines name. The largest sets come first: the most specific line applies."""

    async def send(self, call: Call) -> Reply:
        texts: list[str] = []
        if call.task in ANSWERING:
            texts = self.replies.get(digest(["", {"prompt": call.fields["prompt"]}]), [])
        for names in self.field_names.get(call.task, ()):
            if texts:
                break
            if call.fields.keys() >= set(names):
                texts = self.replies.get(digest([call.task, {name: call.fields[name] for name in names}]), [])
        if call.sample >= len(texts):
            return refusal(
                404, f"{self.name} holds {len(texts)} replies to this {call.task!r}, not number {call.sample + 1}"
            )
        text = texts[call.sample]
        usage = {
            "prompt_tokens": sum(count_words(message["content"]) for message in call.messages),
            "completion_tokens": count_words(text),
        }
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return Reply(200, json.dumps({"model": "replay", "choices": [choice], "usage": usage}))


def load_replay(path: Path) -> Replay:
    """Read a file of recorded replies.

    Raises:
        InputError: A line has neither "prompt" and "responses" nor "task", "fields" and "responses", all of them text.
    """
    replies: dict[str, list[str]] = {}
    field_names: dict[str, set[tuple[str, ...]]] = {}
    with open_input(str(path)) as file:
        for line in json_lines(str(path), file):
            row: Row = line.row or {}
            texts: Any = row.get("responses", [row["response"]] if "response" in row else None)
            fields: Any = row.get("fields") if "task" in row else {"prompt": row.get("prompt")}
            values = [*texts, *fields.values()] if isinstance(texts, list) and isinstance(fields, dict) else [None]
            if not all(isinstance(value, str) for value in values):
                form = 'expected {"prompt", "responses"} or {"task", "fields", "responses"}, all of it text'
                raise InputError(f"{path}:{line.number}: {line.problem or form}")
            task = str(row.get("task", ""))
            replies.setdefault(digest([task, fields]), []).extend(texts)
            field_names.setdefault(task, set()).add(tuple(sorted(fields)))
    largest_first = {task: sorted(sets, key=lambda names: (-len(names), names)) for task, sets in field_names.items()}
    return Replay(path.name, replies, largest_first)
