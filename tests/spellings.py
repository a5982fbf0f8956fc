"""How servers and models spell reasoning: for each name, the message that carries a thought and an answer."""

from collections.abc import Callable
from typing import Any

Spelling = Callable[[str, str], dict[str, Any]]  # (thought, answer) -> fields of the message


def in_text(before: str, between: str, after: str = "") -> Spelling:
    return lambda thought, answer: {"content": f"{before}{thought}{between}{answer}{after}"}


def in_field(name: str) -> Spelling:
    return lambda thought, answer: {"content": answer, name: thought}


def in_part(part: Callable[[str], dict[str, Any]]) -> Spelling:
    return lambda thought, answer: {"content": [part(thought), {"type": "text", "text": answer}]}


def in_details(kind: str, key: str) -> Spelling:
    return lambda thought, answer: {"content": answer, "reasoning_details": [{"type": kind, key: thought, "index": 0}]}


ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
SPELLINGS: dict[str, Spelling] = {
    **{tag: in_text(f"<{tag}>\n", f"\n</{tag}>\n\n") for tag in ("think", "thinking", "reasoning", "thought")},
    "tight": in_text("<think>", "</think>"),
    "capitals": in_text("<THINK>", "</THINK>"),
    "seed": in_text("<seed:think>", "</seed:think>"),
    "mistral": in_text("[THINK]", "[/THINK]"),
    "kimi": in_text("◁think▷", "◁/think▷"),
    "solution": in_text(
        "<|begin_of_thought|>\n\n", "\n<|end_of_thought|>\n\n<|begin_of_solution|>\n", "<|end_of_solution|>"
    ),
    "cohere": in_text("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
    "gemma": in_text("<|channel>thought\n", "<channel|>"),
    "harmony": in_text(ANALYSIS, f"<|end|><|start|>assistant{FINAL}", "<|return|>"),
    "harmony without turns": in_text(ANALYSIS, FINAL),
    "harmony opened": in_text("", f"<|end|><|start|>assistant{FINAL}"),
    "harmony stripped": in_text("analysis", "assistantfinal"),
    "granite": in_text("Here is my thought process: ", "\n\nHere is my response: "),
    "apriel": in_text(
        "Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n", "\n[END FINAL RESPONSE]\n<|end|>\n"
    ),
    "opened": in_text("", "\n</think>\n\n"),
    "opened, tight": in_text("", "</think>"),
    "opened, mistral": in_text("", "[/THINK]"),
    "end token": in_text("<think>", "</think>", "<|im_end|>\n"),
    **{name: in_field(name) for name in ("reasoning", "reasoning_content", "thinking")},
    "field and empty block": lambda thought, answer: {
        "content": f"<think>\n\n</think>\n\n{answer}", "reasoning_content": thought
    },
    "thinking part": in_part(lambda thought: {"type": "thinking", "thinking": thought, "signature": "AA=="}),
    "nested part": in_part(lambda thought: {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}),
    "reasoning part": in_part(lambda thought: {"type": "reasoning", "text": thought}),
    "summary part": in_part(lambda thought: {"type": "reasoning", "summary": [{"text": thought}]}),
    "details": in_details("reasoning.text", "text"),
    "blocks": lambda thought, answer: {
        "content": answer, "thinking_blocks": [{"type": "thinking", "thinking": thought, "signature": "AA=="}]
    },
    "summary": in_details("reasoning.summary", "summary"),
}  # fmt: skip
