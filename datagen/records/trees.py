"""Conversations that branch, as OpenAssistant has them: a tree of messages, or a flat file of messages that name their
parents.

Each message has {"text", "role", "replies"}, and may have "rank" among the replies of its parent, 0 the best. A file of
single messages ({"message_id", "parent_id", "text", "role"}) becomes one row per tree before it is read.
"""

from collections.abc import Iterator
from typing import Any

from datagen.records.lines import Line
from datagen.records.messages import ASSISTANT, read_messages
from datagen.records.record import Messages, Row

KEYS = frozenset(("message_id", "parent_id", "text", "role"))
"""The columns of a message that names its parent."""


def is_message(row: Row) -> bool:
    """Tell whether a row is a message that names its parent."""
    return row.keys() >= KEYS


def grow_trees(lines: Iterator[Line]) -> Iterator[Line]:
    """Join the messages of a file to trees, one line each, at the place of the root. All messages are held in memory.

    A reply whose parent is not in the file is a line with a problem, as every other line is that cannot be used.
    """
    messages: dict[str, tuple[Line, Row]] = {}
    others: list[Line] = []
    for line in lines:
        if line.row is None or not is_message(line.row):
            others.append(line if line.row is None else line._replace(row=None, problem="no message with a parent"))
        else:
            messages[str(line.row["message_id"])] = (line, {**line.row, "replies": []})
    for line, message in messages.values():
        if message["parent_id"] is None:
            tree_id = message.get("message_tree_id") or message["message_id"]
            others.append(line._replace(row={"id": tree_id, "message_tree_id": tree_id, "prompt": message}))
        elif str(message["parent_id"]) in messages:
            messages[str(message["parent_id"])][1]["replies"].append(message)
        else:
            others.append(line._replace(row=None, problem=f"its parent {message['parent_id']} is not in the file"))
    yield from sorted(others, key=lambda line: line.number)


def replies_of(message: Row) -> list[Row]:
    """Return the replies to a message, the best first; those without a rank come last, in their order."""
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise ValueError('"replies" is not a list of messages')
    return sorted((reply for reply in replies if not reply.get("deleted")), key=rank_of)


def rank_of(message: Row) -> float:
    """Return the rank of a message among its siblings, 0 the best; infinity if it has none."""
    rank = message.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")


def best_thread(root: Any) -> tuple[Messages, bool]:
    """Follow the best reply of each message; return the thread, up to the assistant's last turn, and whether the tree
    has other replies."""
    message, turns, has_others = root, [], False
    while message is not None:
        turns.append(message)
        replies = replies_of(message)
        has_others = has_others or len(replies) > 1
        message = replies[0] if replies else None
    messages = read_messages([{"role": turn.get("role"), "text": turn.get("text")} for turn in turns], "prompt")
    if len(messages) > 1 and messages[-1]["role"] != ASSISTANT:
        messages, has_others = messages[:-1], True
    return messages, has_others


def forks(root: Row) -> Iterator[tuple[Messages, list[Row]]]:
    """Yield every place of a tree where the assistant has two or more replies: the turns before, and the replies."""
    stack: list[tuple[Row, list[Row]]] = [(root, [])]
    while stack:
        message, before = stack.pop()
        turns = [*before, {"role": message.get("role"), "text": message.get("text")}]
        replies = replies_of(message)
        if len(replies) > 1 and replies[0].get("role") == "assistant":
            yield read_messages(turns, "prompt"), replies
        stack += [(reply, turns) for reply in reversed(replies)]
