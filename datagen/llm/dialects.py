"""How servers write an answer: the fields and parts of a message that hold text, reasoning or a refusal, and the
numbers of its tokens, as tables."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from datagen.reasoning import join_thoughts, split_thinking
from datagen.records.record import Row

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
"""Fields of a message; where several hold text it is the same text, and the first counts."""
TEXT, REASONING, REFUSAL = "text", "reasoning", "refusal"
PARTS = {
    "text": TEXT, "output_text": TEXT, "thinking": REASONING, "reasoning": REASONING, "refusal": REFUSAL,
}  # fmt: skip
"""What a part of a content that is a list holds, by its type. Any other part, such as an image, is no text."""
TEXT_KEYS = ("text", "thinking", "reasoning", "reasoning_content", "summary", "content", "refusal")
"""Under which a part holds its text; the first that does counts."""
DEEPEST = 4
"""Levels of lists and objects around a text."""


WHOLE = frozenset(
    ("stop", "end_turn", "stop_sequence", "eos", "eos_token", "completed", "complete", "finish", "finished", "done",
     "tool_calls", "tool_call", "tool_use", "function_call", "")
)  # fmt: skip
"""Finish reasons of a whole answer, in lower case; none at all is one of them."""
CUT = frozenset(
    ("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length", "max_length", "incomplete",
     "token_limit", "model_context_window_exceeded", "context_length_exceeded", "max_context_length")
)  # fmt: skip
"""Finish reasons of an answer that reached a limit of its length."""
FILTERED = frozenset(
    ("content_filter", "content_filtered", "safety", "recitation", "refusal", "sensitive", "blocklist", "blocked",
     "prohibited_content", "spii", "guardrail_intervened", "moderation", "image_safety", "violation", "censored")
)  # fmt: skip
"""Finish reasons of an answer that the server or the model withheld. What is in none of these tables is no answer."""


MOST_TOKENS = 100_000_000
"""Of one answer. A larger number is a fault of the server, and would spoil the totals."""
PROMPT_TOKENS, COMPLETION_TOKENS = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
"""Fields of `usage`; of this and the tables below the first that holds a number counts."""
TOTAL_TOKENS = ("total_tokens",)
CACHED_TOKENS = (
    "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens", "cache_read_input_tokens",
    "prompt_cache_hit_tokens", "cached_tokens", "prompt_tokens_details.cache_read_tokens",
)  # fmt: skip
"""Tokens of the prompt that the server had read before."""
WRITTEN_TOKENS = (
    "cache_creation_input_tokens", "prompt_tokens_details.cache_write_tokens",
    "prompt_tokens_details.cache_creation_tokens", "input_tokens_details.cache_creation_tokens",
)  # fmt: skip
"""Tokens of the prompt that it keeps for later."""
REASONING_TOKENS = (
    "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens", "reasoning_tokens",
    "completion_tokens_details.thinking_tokens",
)  # fmt: skip
OUTSIDE_PROMPT = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Of the tables above, those that Anthropic does not count in `input_tokens`."""


class Tokens(NamedTuple):
    """The tokens of an answer. None: the server does not say."""

    prompt: int | None
    completion: int | None
    """Reasoning included."""
    cached: int = 0
    """Of the prompt."""
    written: int = 0
    """Of the prompt."""
    reasoning: int = 0
    """Of the completion."""


NO_TOKENS = Tokens(0, 0)


class Spoken(NamedTuple):
    """What a message says."""

    text: str
    """The answer."""
    reasoning: str
    """What was thought before; empty if nothing is known of it."""
    refusal: str = ""
    """The model's words in place of an answer, where the server sets them apart."""
    is_cut: bool = False
    """The message ends inside the reasoning."""
    tool_calls: tuple[Row, ...] = ()
    """The functions that the model calls, in the form of the OpenAI API."""


def is_content(value: object) -> bool:
    """Check that a value is the content of a message: text, a list of parts, or nothing."""
    if isinstance(value, list):
        return all(isinstance(part, dict) for part in value)
    return value is None or isinstance(value, str)


def content_of(content: Any, kind: str = TEXT) -> str:
    """Return the text in a content: all of it, or that of its parts of one kind."""
    if isinstance(content, str):
        return content if kind == TEXT else ""
    texts = [text_in(part) for part in content or () if kind_of(part) == kind]
    return join_thoughts(texts) if kind == REASONING else "".join(texts)


def kind_of(part: Mapping[str, Any]) -> str | None:
    """Return what a part of a content holds: TEXT, REASONING, REFUSAL, or None."""
    name = part.get("type")
    return PARTS.get(name) if isinstance(name, str) else None


def text_in(value: Any, depth: int = DEEPEST) -> str:
    """Return the text of a part, or of a field of a message; empty if there is none in the forms that are known."""
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, list):
        return "\n\n".join(filter(None, (text_in(part, depth - 1) for part in value)))
    if not isinstance(value, dict):
        return ""
    return next(filter(None, (text_in(value.get(key), depth - 1) for key in TEXT_KEYS)), "")


def read_message(message: Mapping[str, Any]) -> Spoken:
    """Read what a message of the assistant says, in any of these spellings."""
    content = message.get("content")
    field = next((text for name in REASONING_FIELDS if (text := text_in(message.get(name) or "").strip())), "")
    apart = [field, content_of(content, REASONING)]
    thought = split_thinking(content_of(content))
    return Spoken(
        thought.answer,
        join_thoughts([*apart, thought.reasoning]),
        text_in(message.get("refusal")) or content_of(content, REFUSAL),
        thought.is_cut,
        read_calls(message),
    )


def read_calls(message: Mapping[str, Any]) -> tuple[Row, ...]:
    """Return the calls of functions in a message; none if one of them has no name or no arguments."""
    calls = message.get("tool_calls")
    if not calls:
        return ()
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return ()
    functions = [call.get("function") for call in calls]
    are_named = all(isinstance(f, dict) and isinstance(f.get("name"), str) and "arguments" in f for f in functions)
    return tuple(calls) if are_named else ()


def read_tokens(usage: object) -> Tokens:
    """Read the numbers of tokens in `usage` of an answer, in any of these spellings.

    Some servers leave the reasoning out of the completion, and count it in the total alone (Gemini, xAI).
    """
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = first_count(counts, PROMPT_TOKENS), first_count(counts, COMPLETION_TOKENS)
    total, cached = first_count(counts, TOTAL_TOKENS), first_count(counts, CACHED_TOKENS) or 0
    written, reasoning = first_count(counts, WRITTEN_TOKENS) or 0, first_count(counts, REASONING_TOKENS) or 0
    if prompt is not None:
        is_apart = "prompt_tokens" not in counts and any(name in counts for name in OUTSIDE_PROMPT)
        prompt = prompt + cached + written if is_apart or cached + written > prompt else prompt
    if completion is not None:
        least = total - prompt if total is not None and prompt is not None else 0
        completion = max(completion, least, reasoning)
    return Tokens(prompt, completion, cached, written, reasoning)


def first_count(counts: Mapping[str, Any], places: tuple[str, ...]) -> int | None:
    """Return the number of tokens at the first of some places that holds one; a dot leads into an object."""
    for place in places:
        outer, _, inner = place.rpartition(".")
        values = counts.get(outer) if outer else counts
        if isinstance(values, dict) and (number := token_count(values.get(inner))) is not None:
            return number
    return None


def token_count(value: object) -> int | None:
    """Return a number of tokens, or None if it is none that an answer can have."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
