"""Recorded replies as a model: `replay:FILE`.

A line of the file holds the replies to one prompt, one for each sample:

    {"prompt": "What is 2 + 3?", "responses": ["2 + 3 = 5. The answer is 5.", "It is 6."]}
    {"task": "tree/value", "fields": {"state": "1 4 6"}, "responses": ["impossible"]}

A line without a task replies where a prompt is to be answered, directly or by chain of thought. A line with a task (the
name of a template) replies to that template where it is filled with these fields; without any field, to all that no
other line answers. `"sample": 1` says that the first reply of the line is that of sample 1: round 2 of `evolve` asks
for it. `"reasoning"` is what was thought before the reply: a text beside "response", a list of texts and null beside
"responses", as in our rows. A request that is not recorded is refused, so a run reports what is missing and asks no
other model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.errors import InputError
from datagen.llm.call import Call, Reply, refusal
from datagen.records.files import open_file
from datagen.records.lines import json_lines
from datagen.records.record import Row, digest, reasoning_field
from datagen.text import count_words

ANSWERING = frozenset(("answer", "cot/reason", "direct/schema"))
"""Tasks that ask for the answer to a prompt."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The innermost layer of a `replay:` model."""

    name: str
    replies: Mapping[str, Mapping[int, Row]]
    """Messages by the digest of task and fields, and the number of the sample."""
    field_names: Mapping[str, Sequence[tuple[str, ...]]]
    """Task to the sets of fields that its lines name. The largest sets come first: the most specific line applies."""

    async def send(self, call: Call) -> Reply:
        messages: Mapping[int, Row] = {}
        if call.task in ANSWERING:
            messages = self.replies.get(digest(["", {"prompt": call.fields["prompt"]}]), {})
        for names in self.field_names.get(call.task, ()):
            if messages:
                break
            if call.fields.keys() >= set(names):
                messages = self.replies.get(digest([call.task, {name: call.fields[name] for name in names}]), {})
        if call.sample not in messages:
            return refusal(
                404, f"{self.name} holds {len(messages)} replies to this {call.task!r}, not number {call.sample + 1}"
            )
        message = messages[call.sample]
        usage = {
            "prompt_tokens": sum(count_words(turn["content"] or "") for turn in call.messages),
            "completion_tokens": count_words(message["content"]) + count_words(message.get("reasoning_content") or ""),
        }
        choice = {"message": message, "finish_reason": "stop"}
        return Reply(200, json.dumps({"model": "replay", "choices": [choice], "usage": usage}))


def load_replay(path: Path) -> Replay:
    """Read a file of recorded replies.

    Raises:
        InputError: A line has neither "prompt" and "responses" nor "task", "fields" and "responses", all of them text.
    """
    replies: dict[str, dict[int, Row]] = {}
    field_names: dict[str, set[tuple[str, ...]]] = {}
    with open_file(str(path)) as file:
        for line in json_lines(str(path), file):
            row: Row = line.row or {}
            texts: Any = row.get("responses", [row["response"]] if "response" in row else None)
            fields: Any = row.get("fields") if "task" in row else {"prompt": row.get("prompt")}
            values = [*texts, *fields.values()] if isinstance(texts, list) and isinstance(fields, dict) else [None]
            messages = (
                recorded_messages(texts, row.get("reasoning")) if all(isinstance(v, str) for v in values) else None
            )
            if messages is None or type(row.get("sample", 0)) is not int:
                form = (
                    'expected {"prompt", "responses"} or {"task", "fields", "responses"} of text, "reasoning" of as '
                    'many texts, and "sample" a number'
                )
                raise InputError(f"{path}:{line.number}: {line.problem or form}")
            task = str(row.get("task", ""))
            numbered = replies.setdefault(digest([task, fields]), {})
            numbered.update(enumerate(messages, row.get("sample", len(numbered))))
            field_names.setdefault(task, set()).add(tuple(sorted(fields)))
    largest_first = {task: sorted(sets, key=lambda names: (-len(names), names)) for task, sets in field_names.items()}
    return Replay(path.name, replies, largest_first)


def recorded_messages(texts: list[str], reasoning: Any) -> list[Row] | None:
    """Return the messages of recorded replies; None if the reasoning does not fit them.

    Args:
        texts: The replies.
        reasoning: What was thought before each, text or null, as a list; for one reply also the text itself.
    """
    thoughts = reasoning if isinstance(reasoning, list) else [reasoning]
    if reasoning is None:
        thoughts = [None] * len(texts)
    if len(thoughts) != len(texts) or not all(isinstance(thought, str | None) for thought in thoughts):
        return None
    return [
        {"role": "assistant", "content": text, **reasoning_field(thought, "reasoning_content")}
        for text, thought in zip(texts, thoughts, strict=True)
    ]
