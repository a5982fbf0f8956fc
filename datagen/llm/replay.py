"""Recorded replies as a model: `replay:FILE`.

A line of the file holds the replies to one prompt, sample by sample:

    {"prompt": "What is 2 + 3?", "responses": ["2 + 3 = 5. The answer is 5.", "It is 6."]}
    {"task": "tree/value", "fields": {"state": "1 4 6"}, "responses": ["impossible"]}

A line without a task answers a prompt that is to be answered, directly or by chain of thought. One with a task (the
name of the template that asks) answers that template where it is filled in with these fields. What is not recorded is
refused, so a run says what is missing and asks nobody else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datagen.errors import InputError
from datagen.llm.call import Call, Reply, refusal
from datagen.records.files import open_input
from datagen.records.lines import Line, json_lines
from datagen.records.record import Row, digest
from datagen.text import count_words

ANSWERING = frozenset(("answer", "cot/reason"))
"""Tasks that ask for the answer to a prompt."""
Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Replay:
    """The innermost layer of a `replay:` model."""

    name: str
    replies: Mapping[str, list[str]]
    """By the digest of task and fields."""
    asked_by: Mapping[str, Sequence[tuple[str, ...]]]
    """Task to the field names that recorded replies name, the most first: what says more goes first."""

    async def send(self, call: Call) -> Reply:
        found = self._find(call)
        if call.sample >= len(found):
            return refusal(
                404, f"{self.name} holds {len(found)} replies to this {call.task!r}, not number {call.sample + 1}"
            )
        text = found[call.sample]
        usage = {
            "prompt_tokens": sum(count_words(message["content"]) for message in call.messages),
            "completion_tokens": count_words(text),
        }
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return Reply(200, json.dumps({"model": "replay", "choices": [choice], "usage": usage}))

    async def close(self) -> None:
        """Nothing is open."""

    def _find(self, call: Call) -> list[str]:
        if call.task in ANSWERING and (found := self.replies.get(_key("", {"prompt": call.fields["prompt"]}))):
            return found
        for names in self.asked_by.get(call.task, ()):
            if names and not set(names) <= call.fields.keys():
                continue
            found = self.replies.get(_key(call.task, {name: call.fields[name] for name in names}))
            if found:
                return found
        return []


def load_replay(path: Path) -> Replay:
    """Read a file of recorded replies."""
    replies: dict[str, list[str]] = {}
    asked_by: dict[str, set[tuple[str, ...]]] = {}
    with open_input(str(path)) as file:
        for line in json_lines(str(path), file):
            task, fields, said = _entry(path, line)
            replies.setdefault(_key(task, fields), []).extend(said)
            asked_by.setdefault(task, set()).add(tuple(sorted(fields)))
    ordered = {task: sorted(names, key=lambda each: (-len(each), each)) for task, names in asked_by.items()}
    return Replay(path.name, replies, ordered)


def _entry(path: Path, line: Line) -> tuple[str, Fields, list[str]]:
    """Read one line: task, fields, replies."""
    row: Row = line.row or {}
    said = row.get("responses", [row["response"]] if "response" in row else None)
    fields = row.get("fields") if "task" in row else {"prompt": row.get("prompt")}
    if not isinstance(said, list) or not isinstance(fields, dict) or not _all_text([*said, *fields.values()]):
        problem = line.problem or 'expected {"prompt", "responses"} or {"task", "fields", "responses"}, all of it text'
        raise InputError(f"{path}:{line.number}: {problem}")
    return str(row.get("task", "")), fields, said


def _all_text(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _key(task: str, fields: Fields) -> str:
    return digest([task, fields])
