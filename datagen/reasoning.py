"""What a model thinks before it answers, split from the answer: a table of the marks that models write around it.

Reasoning is what stands in blocks at the beginning of a text, one or several. Where the chat template has opened the
first block, only its closing mark is in the text. Marks further on, or in code, belong to the answer.
"""

import re
from typing import NamedTuple


class Marks(NamedTuple):
    """The marks around a block of reasoning."""

    opening: str
    closings: tuple[str, ...]
    """Any of these ends the block."""
    alone: bool = True
    """Whether one of them without the other is a mark too: an opening begins a block that was cut, and a closing ends a
    block that the chat template had opened."""


class Thought(NamedTuple):
    """A text, split."""

    reasoning: str
    """Without the marks, blocks with a blank line between them; empty if there is none."""
    answer: str
    """The rest; where the reasoning was cut, the block that does not end."""
    is_cut: bool = False
    """The text ends inside the reasoning."""


FINAL = tuple(
    f"{before}<|channel|>final<|message|>" for before in ("<|end|><|start|>assistant", "<|start|>assistant", "")
)
"""What begins the answer of gpt-oss, the longest first."""
MARKS = (
    *(Marks(f"<{tag}>", (f"</{tag}>",)) for tag in ("think", "thinking", "reasoning", "thought", "seed:think")),
    Marks("[THINK]", ("[/THINK]",)),
    Marks("◁think▷", ("◁/think▷",)),
    Marks("<|begin_of_thought|>", ("<|end_of_thought|>",)),
    Marks("<|START_THINKING|>", ("<|END_THINKING|>",)),
    Marks("<|channel>thought", ("<channel|>",)),
    Marks("<|channel|>analysis<|message|>", (*FINAL, "<|end|>")),
    Marks("<|start|>assistant<|channel|>analysis<|message|>", (*FINAL, "<|end|>")),
    Marks("<|channel|>commentary<|message|>", (*FINAL, "<|end|>")),
    Marks("<|start|>assistant<|channel|>commentary<|message|>", (*FINAL, "<|end|>")),
    # Words that are marks as a pair only: gpt-oss without its special tokens, Granite and Apriel.
    Marks("analysis", ("assistantfinal",), alone=False),
    Marks("Here is my thought process:", ("Here is my response:",), alone=False),
    Marks("Here are my reasoning steps:", ("[BEGIN FINAL RESPONSE]",), alone=False),
)
ANSWER_OPENINGS = (*FINAL, "<|begin_of_solution|>", "<|START_RESPONSE|>")
"""Marks before an answer, after the reasoning or without one."""
END_TOKENS = (
    "<|end_of_solution|>", "<|END_RESPONSE|>", "[END FINAL RESPONSE]", "<|return|>", "<|end|>", "<|im_end|>",
    "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>",
    "<｜end▁of▁sentence｜>", "</s>",
)  # fmt: skip
"""Marks behind an answer: the tokens that end a turn, where a server leaves them in the text."""


def any_of(marks: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, marks))


OPENING = re.compile(rf"\s*(?:{'|'.join(f'({re.escape(marks.opening)})' for marks in MARKS)})", re.IGNORECASE)
CLOSINGS = tuple(re.compile(any_of(marks.closings), re.IGNORECASE) for marks in MARKS)
"""Of each entry of MARKS."""
ORPHANS = tuple({mark: 0 for marks in MARKS if marks.alone for mark in marks.closings if mark != "<|end|>"})
"""The closing marks of blocks that a chat template may have opened; `<|end|>` ends many other turns."""
LAST_CHARACTERS = frozenset(mark[-1] for mark in ORPHANS)
"""A single character is found in no time, so that texts without any of them cost nothing."""
ORPHAN = re.compile(
    rf"```.*?```|`[^`\n]*`|({any_of(tuple(marks.opening for marks in MARKS if marks.alone))})"
    rf"|(?<![\"'“‘«(])(?P<closing>{any_of(ORPHANS)})",
    re.DOTALL,
)
"""Code, an opening mark, or a closing one that is not quoted."""
ANSWER_OPENING = re.compile(rf"\s*(?:{any_of(ANSWER_OPENINGS)})\s*")


def split_thinking(text: str) -> Thought:
    """Split the reasoning of a model from its answer, and remove the marks around both.

    A text without marks is returned as it is.
    """
    thoughts: list[str] = []
    at = 0
    # 1. The blocks at the beginning, each up to the first mark that closes it.
    while opening := OPENING.match(text, at):
        number = opening.lastindex or 0
        closing = CLOSINGS[number - 1].search(text, opening.end())
        if closing is None:
            if not MARKS[number - 1].alone:
                break
            return Thought(join_thoughts(thoughts), text[at:], is_cut=True)
        thoughts.append(text[opening.end() : closing.start()])
        at = closing.end()

    # 2. Without a block: everything before a closing mark that no mark opens.
    if not thoughts and any(last in text for last in LAST_CHARACTERS) and any(mark in text for mark in ORPHANS):
        orphan = next((match for match in ORPHAN.finditer(text) if match.lastindex), None)
        if orphan and orphan["closing"]:
            thoughts.append(text[: orphan.start()])
            at = orphan.end()

    # 3. The answer, without the marks around it.
    start = ANSWER_OPENING.match(text, at)
    answer = without_end_tokens(text[start.end() if start else at :])
    return Thought(join_thoughts(thoughts), answer.lstrip() if at else answer)


def join_thoughts(thoughts: list[str]) -> str:
    """Join pieces of reasoning, each once, with a blank line between them."""
    texts = [text for thought in thoughts if thought and (text := thought.strip())]
    return "\n\n".join(dict.fromkeys(texts)) if texts else ""


def without_end_tokens(text: str) -> str:
    """Remove the tokens that end a turn from the end of a text, with the blanks before them.

    `</s>` also ends text that is struck through.
    """
    if not text.rstrip().endswith(END_TOKENS):
        return text
    tokens = tuple(token for token in END_TOKENS if token != "</s>" or "<s>" not in text)
    end = whole = len(text.rstrip())
    while token := next((token for token in tokens if text.endswith(token, 0, end)), None):
        end -= len(token)
        while end and text[end - 1].isspace():
            end -= 1
    return text if end == whole else text[:end]
