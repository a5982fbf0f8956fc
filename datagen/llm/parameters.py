"""What a model at an address does not take: parameters to leave out or to rename, and the longest answer that fits.

Servers and the proxies before them say it in many wrappers, and some in words alone, so the words are read. What is
learned holds for every call to the model at this address, those in flight too: whether a refusal can be mended is
decided by what its own call has sent. The key of a call holds the parameters as they were asked for.

The next run begins with what is known (facts.py). What an earlier run has learned is forgotten where the server says
or shows something else: its refusal names a parameter that was left out, an answer is longer than the context, or ends
at a limit that was lowered.
"""

import json
import re
from collections.abc import Iterator, Mapping
from math import ceil
from time import time
from typing import Any

from datagen.llm.call import Reply, ends_at_limit
from datagen.llm.facts import Facts, number_from
from datagen.records.record import Messages

LENGTHS = ("max_tokens", "max_completion_tokens")
"""Names of the length limit of an answer. Newer models refuse the first, and take the second."""
ESSENTIAL = frozenset(
    ("messages", "model", "tools", "tool_choice", "logprobs", "top_logprobs", "response_format", "chat_template_kwargs")
)
"""Without these another thing would be asked: their refusal stands."""
LEFT_OUT_FIRST = "top_p"
"""Of several parameters that may not come together."""
REFUSES = re.compile(
    r"unsupported|not[ _]support|unknown|unrecogni[sz]ed|not recogni[sz]ed|not permitted|not allowed|extra_forbidden"
    r"|unexpected|cannot both|can't both|only one of|use only one|deprecated|cannot find field|not accept"
    r"|additional propert|invalid (?:parameter|argument|field)|not available",
    re.IGNORECASE,
)
"""What a server says of a parameter that it does not take."""
CONTEXT = re.compile(r"(?:context (?:length|window|size)[^\d]{1,30}|n_ctx[^\d]{1,10})(\d[\d,]{1,12})", re.IGNORECASE)
"""The number of tokens that prompt and answer may have together."""
PROMPT_TOKENS = re.compile(
    r"(\d[\d,]{0,12}) (?:tokens )?(?:in|of|from) (?:the |your )?(?:messages|prompt|input)|(\d[\d,]{0,12}) input tokens"
    r"|(?:prompt|input|request) (?:has|contains)(?: at least)? (\d[\d,]{0,12})",
    re.IGNORECASE,
)
"""The number of tokens that the prompt of the refused call has."""
REQUESTED = re.compile(r"requested (?:about )?(\d[\d,]{0,12}) tokens", re.IGNORECASE)
"""The number of tokens that prompt and answer of the refused call were to have."""
LONGEST = re.compile(
    r"(?:> |at most |less than or equal to |<= ?|≤ ?|maximum(?: allowed)?(?: value)?(?: is| of|:) |\[\d+, ?)"
    r"(\d[\d,]{1,12})",
    re.IGNORECASE,
)
"""The number of tokens that an answer may have."""
WORD_KEYS = ("message", "msg", "error", "errors", "detail", "details", "description", "title", "param", "loc", "code")
"""Keys of the body of an error that hold words about the request; others may repeat the request itself."""
DEEPEST, MOST_WORDS = 5, 4_000
"""Levels of a body, and characters of its words, that are read."""
MARGIN = 1.1
"""How much longer in tokens, for its characters, another prompt may be than the longest that was refused."""
MOST_CONTEXT, MOST_PER_CHARACTER = 10**9, 100.0
"""Tokens of a context, and of a character, that a file may hold."""


class Parameters:
    """What is known of one model at one address.

    Args:
        place: The model and its address, for messages.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.left_out: set[str] = set()
        self._is_renamed = False
        self._longest: int | None = None
        self._context: int | None = None
        self._tokens_per_character = 0.0
        self._learned = 0.0
        self._recalled: set[str] = set()
        """The names of the values (`values`) that come from an earlier run."""
        self.notes: dict[str, None] = {}
        """What was changed, to be said once each."""

    # What earlier runs have learned

    @property
    def values(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        values = {
            "left out": sorted(self.left_out),
            "renamed": self._is_renamed,
            "longest": self._longest,
            "context": self._context and [self._context, round(self._tokens_per_character, 6)],
        }
        return {name: value for name, value in values.items() if value}

    @property
    def facts(self) -> Facts:
        """What the next run begins with."""
        return Facts(self.values, self._learned)

    def recall(self, facts: Facts) -> None:
        """Begin with what an earlier run has learned."""
        values, self._learned = facts.values, facts.learned
        names = values.get("left out")
        if isinstance(names, list):
            self.left_out = {name for name in names if isinstance(name, str) and name not in ESSENTIAL}
        self._is_renamed = values.get("renamed") is True
        self._longest = whole(values.get("longest"))
        match values.get("context"):
            case [context, per_character]:
                self._context = whole(context)
                self._tokens_per_character = number_from(per_character, 0, MOST_PER_CHARACTER) or 0.0
        self._recalled = set(self.values)

    def recalled_words(self) -> Iterator[str]:
        """Yield what is said of the recalled values."""
        if "left out" in self._recalled:
            yield f"{', '.join(sorted(self.left_out))} left out"
        if "renamed" in self._recalled:
            yield f"{LENGTHS[0]} sent as {LENGTHS[1]}"
        if "longest" in self._recalled:
            yield f"an answer may have {self._longest:,} tokens"
        if "context" in self._recalled:
            yield f"the context is {self._context:,} tokens"

    def _forget(self, *names: str) -> bool:
        """Forget values that an earlier run has learned; return whether there were any."""
        stale = self._recalled & set(names)
        if "left out" in stale:
            self.left_out = set()
        if "renamed" in stale:
            self._is_renamed = False
        if "longest" in stale:
            self._longest = None
        if "context" in stale:
            self._context, self._tokens_per_character = None, 0.0
        self._recalled -= stale
        if stale:
            self._note(f"what an earlier run has learned holds no longer and was forgotten: {', '.join(sorted(stale))}")
        return bool(stale)

    # What is sent

    def adapted(self, params: Mapping[str, Any], messages: Messages) -> Mapping[str, Any]:
        """Return the parameters to send.

        Args:
            params: As they were limit for.
            messages: The prompt.
        """
        if not (self.left_out or self._is_renamed or self._longest or self._context):
            return params
        sent = dict(params)
        if self._is_renamed and LENGTHS[0] in sent:
            limit = sent.pop(LENGTHS[0])
            sent.setdefault(LENGTHS[1], limit)
        sent = {name: value for name, value in sent.items() if name not in self.left_out}
        limits = [self._longest] if self._longest else []
        if self._context:
            limits.append(self._context - ceil(self._tokens_per_character * length_of(messages) * MARGIN))
        for name in LENGTHS:
            limit = sent.get(name)
            if isinstance(limit, int) and limits and 0 < min(limits) < limit:
                sent[name] = min(limits)
        if self._recalled and not self.notes and sent != params:
            self._note(f"remembered: {'; '.join(self.recalled_words())}")
        return sent

    # What comes back

    def check(self, reply: Reply, params: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Forget a length of an earlier run that an answer shows to be wrong, or that may have cut it.

        Args:
            reply: The answer.
            params: The parameters as the call has them.
            sent: As they were sent.
        """
        if not self._recalled & {"longest", "context"}:
            return
        tokens = sum(count or 0 for count in reply.usage.values())
        is_lowered = min(limits_in(sent), default=0) < min(limits_in(params), default=0)
        if is_lowered and ends_at_limit(reply):
            self._forget("longest", "context")
        elif self._context and tokens > self._context:
            self._forget("context")

    def learn(self, body: str, sent: Mapping[str, Any], messages: Messages) -> bool:
        """Learn from a refusal; return whether its words are about the parameters.

        Args:
            body: The body of the error.
            sent: The parameters of the refused call, as they were sent.
            messages: Its prompt.
        """
        texts = error_words(body)
        words = " ".join(texts)[:MOST_WORDS]
        if self._contradicts(words):
            return True
        limit = next(iter(limits_in(sent)), None)
        if limit is not None and self._learn_length(words, limit, length_of(messages)):
            return True
        named = [name for name in sent if name not in ESSENTIAL and is_named(name, words)]
        if not named or not REFUSES.search(words):
            return False
        alone = [name for name in named if name in texts]  # such as the error's own field "param"
        name = alone[0] if alone else LEFT_OUT_FIRST if LEFT_OUT_FIRST in named else named[0]
        if name == LENGTHS[0]:
            self._is_renamed = True
            self._learn("renamed", f"{LENGTHS[0]} is refused and was sent as {LENGTHS[1]}")
        else:
            self.left_out.add(name)
            self._learn("left out", f"{name} is refused and was left out")
        return True

    def _contradicts(self, words: str) -> bool:
        """Forget what an earlier run has learned of the parameters that a refusal names; return whether it had."""
        is_left_out = any(is_named(name, words) for name in self.left_out)
        is_length = self._is_renamed and is_named(LENGTHS[1], words)
        return self._forget(*["left out"] * is_left_out, *["renamed"] * is_length)

    def _learn_length(self, words: str, limit: int, characters: int) -> bool:
        """Learn the longest answer that fits, from a call that has asked for a longer one."""
        if context := number_in(CONTEXT, words):
            tokens, total = number_in(PROMPT_TOKENS, words), number_in(REQUESTED, words)
            prompt = tokens or (total - limit if total and total > limit else 0)
            self._context = context
            self._tokens_per_character = max(self._tokens_per_character, prompt / characters)
            self._learn(
                "context", f"the context is {context:,} tokens; the length limit of answers was lowered to what fits"
            )
            return True
        longest = number_in(LONGEST, words) if any(name in words for name in LENGTHS) else None
        if longest and longest < limit:
            self._longest = min(longest, self._longest or longest)
            self._learn("longest", f"an answer may have {longest:,} tokens; a higher length limit was lowered to that")
            return True
        return False

    def _learn(self, name: str, text: str) -> None:
        """Note that something was learned in this run."""
        self._recalled.discard(name)
        self._learned = self._learned if self._recalled else time()
        self._note(text)

    def _note(self, text: str) -> None:
        self.notes[f"{self.place}: {text}"] = None


def whole(value: Any) -> int | None:
    """Return a number of tokens from a file; None if it is none."""
    return int(number) if (number := number_from(value, 1, MOST_CONTEXT)) else None


def limits_in(params: Mapping[str, Any]) -> list[int]:
    """Return the length limits among parameters."""
    return [params[name] for name in LENGTHS if isinstance(params.get(name), int)]


def length_limit(params: Mapping[str, Any]) -> int | None:
    """Return the most tokens of an answer that the parameters of a call allow; None if they set no limit."""
    return max(limits_in(params), default=None)


def is_named(name: str, words: str) -> bool:
    """Check that words name a parameter."""
    return place_of(name, words) >= 0


def place_of(name: str, words: str) -> int:
    """Return where a name stands in some words; -1 if it does not."""
    match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words)
    return match.start() if match else -1


def length_of(messages: Messages) -> int:
    """Return the length of a prompt in characters, at least 1."""
    return max(1, sum(len(str(message.get("content") or "")) for message in messages))


def number_in(pattern: re.Pattern[str], words: str) -> int | None:
    """Return the first number that a pattern finds."""
    match = pattern.search(words)
    digits = next(filter(None, match.groups()), "") if match else ""
    return int(digits.replace(",", "")) if digits else None


def error_words(body: str) -> list[str]:
    """Return the texts in the body of an error that speak about the request; all of it if it is not JSON."""
    try:
        return list(words_in(json.loads(body), DEEPEST))
    except (ValueError, RecursionError):
        return [body[:MOST_WORDS]]


def words_in(value: Any, depth: int) -> Iterator[str]:
    """Yield the texts under WORD_KEYS."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from words_in(item, depth - 1)
    elif isinstance(value, dict) and depth:
        for key in WORD_KEYS:
            yield from words_in(value.get(key), depth - 1)
