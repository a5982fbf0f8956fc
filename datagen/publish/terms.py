"""What is known of the terms that models' answers come under, by the name of the model.

Facts with a link, no advice: terms change, and depend on how the model was reached. A model that is not here is said to
have terms that are not known.
"""

import re
from typing import NamedTuple

from datagen.records.makers import is_sim

READ_ON = "November 2026"


class Terms(NamedTuple):
    """What a provider says of the answers of its models."""

    names: re.Pattern[str]
    """What a part of a model's name, between slashes, begins with."""
    statement: str
    link: str


def names(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


KNOWN = (
    Terms(
        names(r"gpt-(?!oss|2|neo|j)|chatgpt|o[1-9](?:-|$)|text-embedding-"),
        "OpenAI does not permit using output to develop models that compete with OpenAI",
        "https://openai.com/policies/",
    ),
    Terms(
        names("claude-"),
        "Anthropic does not permit building a competing product, or training competing models, without its approval",
        "https://www.anthropic.com/legal/commercial-terms",
    ),
    Terms(
        names("gemini-"),
        "Google does not permit using the Gemini API to develop models that compete with it",
        "https://ai.google.dev/gemini-api/terms",
    ),
    Terms(
        names(r"(?:meta-)?llama-?(?:3\.[1-9]|3-[1-4]-|4)"),
        "Meta requires that the name of a model trained on output begins with Llama",
        "https://www.llama.com/llama3_1/license/",
    ),
    Terms(
        names(r"(?:meta-)?llama-?3"),
        "Meta does not permit using output to improve language models other than Llama 3",
        "https://github.com/meta-llama/llama3/blob/main/LICENSE",
    ),
)
SIM = "none: sim is the built-in procedural teacher of datagen, which answers by rules. It is no language model"
UNKNOWN = "not known: look at the license of the model, and at the terms of whoever served it"


def terms_of(model: str) -> str:
    """Return what is known of the terms of a model, by its identity."""
    if is_sim(model):
        return SIM
    parts = model.removeprefix("hf:").split("/")
    entry = next((entry for entry in KNOWN if any(map(entry.names.match, parts))), None)
    return f"{entry.statement} (by its name; {entry.link}, as of {READ_ON})" if entry else UNKNOWN
