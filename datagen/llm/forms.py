"""The form of an answer that a model at an address can be asked for: by a JSON Schema, as JSON alone, or in words.

`response_format` is sent as the schema has it. Where it is refused, the calls to this model at this address, those in
flight too, are sent with the next weaker one: what a refusal can mend is decided by what its own call has sent. The
prompt asks for the form in any case, so the answers are read in one way, whatever was sent.
"""

import re
from collections.abc import Mapping
from time import time
from typing import Any

from datagen.llm.facts import Facts
from datagen.llm.parameters import ESSENTIAL, MOST_WORDS, error_words, place_of
from datagen.records.lines import loads_strictly
from datagen.schemas import Schema

FORM = "response_format"
BY_SCHEMA, ANY_JSON = "json_schema", "json_object"
"""Types of `response_format`, the stricter first."""
NAMES_FORM = re.compile(
    r"response[_ -]?format|json[_ -]?(?:schema|object|mode)|structured[_ -]?output|guided[_ -]?(?:json|decoding)"
    r"|output[_ -]?(?:schema|format|config)|invalid schema|schema is (?:invalid|not supported)|additionalProperties"
    r"|grammar (?:is|error|backend|compil)|(?:compil|pars|invalid|unsupported)\w{0,4} (?:the )?grammar",
    re.IGNORECASE,
)
"""What a server says of a form that it does not take."""
NAMES_SCHEMA = re.compile(r"invalid schema|schema for response_format|schema is invalid", re.IGNORECASE)
"""What a server says that takes schemas, of one that it does not take."""


class Forms:
    """What is known of one model at one address.

    Args:
        place: The model and its address, for messages.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._refused: dict[str, str] = {}
        """Types of `response_format`, and `json_schema NAME` for one schema alone; with a note for each."""
        self._learned = 0.0
        self._answers = self._unformed = 0

    @property
    def facts(self) -> Facts:
        """The types of `response_format` that are refused; the refusal of one schema says nothing of the next run."""
        refused = [kind for kind in (BY_SCHEMA, ANY_JSON) if kind in self._refused]
        return Facts({"refused": refused} if refused else {}, self._learned)

    def recall(self, facts: Facts) -> None:
        """Begin with what an earlier run has learned."""
        names = facts.values.get("refused")
        kinds = [kind for kind in (BY_SCHEMA, ANY_JSON) if isinstance(names, list) and kind in names]
        self._refused = dict.fromkeys(kinds, "")
        self._learned = facts.learned

    @property
    def notes(self) -> list[str]:
        """What was changed, and how often `response_format` was sent in vain."""
        notes = [note for note in self._refused.values() if note]
        if self._unformed:
            count = f"{self._unformed:,} of {self._answers:,} answers are no plain JSON, though {FORM} was sent"
            notes.append(f"{count}; they are read as they stand")
        return [f"{self._place}: {note}" for note in notes]

    def adapted(self, params: Mapping[str, Any], schema: Schema | None) -> Mapping[str, Any]:
        """Return the parameters to send: with the strictest form that is not refused.

        Args:
            params: The parameters, with the `response_format` of the schema.
            schema: Of the call; None leaves them as they are.
        """
        if schema is None or not self._refused or FORM not in params:
            return params
        if not self._refused.keys() & {BY_SCHEMA, f"{BY_SCHEMA} {schema.name}"}:
            return params
        for kind in self._refused:
            self._refused[kind] = self._refused[kind] or f"remembered: {FORM} {kind} is refused and was not sent"
        others = {name: value for name, value in params.items() if name != FORM}
        if schema.is_object and ANY_JSON not in self._refused:
            return {**others, FORM: {"type": ANY_JSON}}
        return others

    def learn(self, body: str, sent: Mapping[str, Any]) -> bool:
        """Learn from a refusal; return whether its words are about the form.

        What the words name first counts: a list of what is taken may follow.

        Args:
            body: The body of the error.
            sent: The parameters of the refused call, as they were sent.
        """
        form = sent.get(FORM) or {}
        texts = error_words(body)
        words = " ".join(texts)[:MOST_WORDS]
        match = NAMES_FORM.search(words)
        if not form or not match:
            return False
        others = (place for name in sent if name not in ESSENTIAL and (place := place_of(name, words)) >= 0)
        is_named = any(text.startswith(FORM) for text in texts)  # such as the error's own field "param"
        if not is_named and min(others, default=match.start()) < match.start():
            return False
        kind, self._learned = form["type"], time()
        if kind == ANY_JSON:
            self._refused[kind] = f"{FORM} {kind} is refused; the prompt alone asks for JSON"
        elif NAMES_SCHEMA.search(words):
            name = form[BY_SCHEMA]["name"]
            self._refused[f"{kind} {name}"] = f"the schema {name} is refused and was not sent"
        else:
            self._refused[kind] = f"{FORM} {kind} is refused and was not sent"
        return True

    def watch(self, text: str) -> None:
        """Count an answer to a request with a form, and whether it is JSON."""
        self._answers += 1
        try:
            loads_strictly(text.strip())
        except (ValueError, RecursionError):
            self._unformed += 1
