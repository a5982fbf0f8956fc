"""The rules of those who read converted files, as their documents and loaders state them: each returns what is wrong.

OpenAI          the guide to fine-tuning, and the checks of its cookbook ("Data preparation and analysis")
LLaMA-Factory   the converters of its data loader (data/converter.py), with the entry of dataset_info.json
axolotl         the strategies `chat_template` for SFT and DPO
"""

import json
from collections.abc import Iterator
from typing import Any

from datagen.records.record import Row

LEAST_EXAMPLES = 10
"""OpenAI starts no job with fewer."""
MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "weight", "function_call"}
ROLES = {"system", "user", "assistant", "tool", "developer"}
ODD, EVEN = ("human", "observation"), ("gpt", "function_call")
"""LLaMA-Factory: the turns that stand at odd places of a conversation, from 1, and at even ones."""


def openai_faults(lines: list[Row]) -> Iterator[str]:
    """Check a file for supervised fine-tuning."""
    if len(lines) < LEAST_EXAMPLES:
        yield f"{len(lines)} examples"
    for line in lines:
        if extra := line.keys() - {"messages", "tools", "parallel_tool_calls"}:
            yield f"unknown keys {extra}"
        yield from message_faults(line["messages"])
        yield from tool_faults(line.get("tools"))
        if line["messages"][-1]["role"] != "assistant":
            yield "the last message is not the assistant's"


def openai_preference_faults(lines: list[Row]) -> Iterator[str]:
    """Check a file for preference fine-tuning (DPO)."""
    if len(lines) < LEAST_EXAMPLES:
        yield f"{len(lines)} examples"
    for line in lines:
        if line.keys() != {"input", "preferred_output", "non_preferred_output"}:
            yield f"keys {line.keys()}"
        if extra := line["input"].keys() - {"messages", "tools", "parallel_tool_calls"}:
            yield f"unknown keys {extra}"
        yield from message_faults(line["input"]["messages"])
        yield from tool_faults(line["input"].get("tools"))
        for name in ("preferred_output", "non_preferred_output"):
            yield from message_faults(line[name])
            if [message["role"] for message in line[name]] != ["assistant"]:
                yield f"{name} is not one message of the assistant"


def message_faults(messages: list[Row]) -> Iterator[str]:
    """Check the messages of one example."""
    open_calls: list[str] = []
    for message in messages:
        if extra := message.keys() - MESSAGE_KEYS:
            yield f"unknown keys of a message {extra}"
        if message["role"] not in ROLES:
            yield f"role {message['role']}"
        calls = message.get("tool_calls", [])
        if not isinstance(message.get("content"), str) and not calls:
            yield "a message without content"
        if "weight" in message and (message["role"] != "assistant" or message["weight"] not in (0, 1)):
            yield f"weight {message['weight']} of {message['role']}"
        if message["role"] == "tool" and message.get("tool_call_id") not in open_calls:
            yield "a result of no call"
        if calls:
            open_calls = [call["id"] for call in calls]
        for call in calls:
            if call["type"] != "function" or not isinstance(call["function"]["arguments"], str):
                yield "a call that is none"


def tool_faults(tools: Any) -> Iterator[str]:
    for tool in tools or []:
        if tool["type"] != "function" or not isinstance(tool["function"]["name"], str):
            yield "a tool that is no function"
        if not isinstance(tool["function"].get("parameters", {}), dict):
            yield "parameters that are no JSON schema"


def llama_factory_faults(lines: list[Row], entry: Row) -> Iterator[str]:
    """Check a file by its entry in dataset_info.json: the tags, their places, and the columns."""
    columns, is_ranking = entry["columns"], bool(entry.get("ranking"))
    if entry["formatting"] != "sharegpt":
        yield f"formatting {entry['formatting']}"
    for line in lines:
        turns = line[columns["messages"]]
        if turns and turns[0]["from"] == "system":
            turns = turns[1:]
        for place, turn in enumerate(turns):
            if turn["from"] not in (EVEN if place % 2 else ODD):
                yield f"{turn['from']} at place {place + 1}"
            if turn["from"] == "function_call" and not {"name", "arguments"} <= set(first(json.loads(turn["value"]))):
                yield "a call that is none"
        if len(turns) % 2 != (1 if is_ranking else 0):
            yield f"{len(turns)} turns"
        for name in ("chosen", "rejected") if is_ranking else ():
            if line[columns[name]]["from"] not in EVEN:
                yield f"{name} is not the assistant's"
        if "tools" in line and (columns.get("tools") != "tools" or not isinstance(json.loads(line["tools"]), list)):
            yield "tools that are not read"
        if "kto_tag" in line and (columns.get("kto_tag") != "kto_tag" or not isinstance(line["kto_tag"], bool)):
            yield "a label that is not read"


def first(value: Any) -> Row:
    """Return a call, or the first of several."""
    call: Row = value[0] if isinstance(value, list) else value
    return call


def axolotl_faults(lines: list[Row]) -> Iterator[str]:
    """Check a file for `type: chat_template`, with `message_field_training: train`."""
    for line in lines:
        if not isinstance(line.get("tools", []), list):
            yield "tools that are no list"
        for message in line["messages"]:
            if message["role"] not in ROLES or not isinstance(message["content"], str):
                yield f"a message of {message['role']}"
            if "train" in message and not isinstance(message["train"], bool):
                yield f"train {message['train']}"
        if not any(message["role"] == "assistant" and message.get("train", True) for message in line["messages"]):
            yield "nothing to train"


def axolotl_preference_faults(lines: list[Row]) -> Iterator[str]:
    """Check a file for DPO with `type: chat_template.default`."""
    for line in lines:
        if line["messages"][-1]["role"] not in ("user", "tool"):
            yield "messages that do not end with a request"
        for name in ("chosen", "rejected"):
            if line[name]["role"] != "assistant" or not isinstance(line[name]["content"], str):
                yield f"{name} is not one message of the assistant"
