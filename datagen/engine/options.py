"""What a command can be told: every option's default, bounds and help, in dataclasses.

A method has its own Options; what all methods share is RunOptions. The command line is built from both (cli.py), so an
option is written down once.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datagen.errors import InputError


def option(
    default: Any,
    help: str,
    *,
    short: str | None = None,
    least: float | None = None,
    most: float | None = None,
    panel: str = "Method",
) -> Any:
    """Declare an option: a dataclass field with its help, bounds and place in the help text."""
    told = {"help": help, "short": short, "least": least, "most": most, "panel": panel}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=told)
    return field(default=default, metadata=told)


FILES, MODELS, LIMITS = "Files", "Models", "Limits"


@dataclass(frozen=True)
class RunOptions:
    """The options of every command that calls a model."""

    output: str | None = option(
        None,
        "Where rows go: a name in .jsonl, or - for standard output. [INPUT.COMMAND.jsonl]",
        short="-o",
        panel=FILES,
    )
    format: str | None = option(None, "What shape the input has. [detected]", panel=FILES)
    limit: int | None = option(None, "Read only the first so many rows.", least=1, panel=FILES)
    strict: bool = option(False, "Stop at the first input line that cannot be used.", panel=FILES)
    overwrite: bool = option(False, "Replace an output of another command. Recorded answers stay free.", panel=FILES)
    dry_run: bool = option(False, "Show the first request and how many calls to expect; send nothing.", panel=FILES)
    json: bool = option(False, "Print what x.meta.json holds to standard output.", panel=FILES)
    quiet: bool = option(False, "Say nothing but warnings and errors.", short="-q", panel=FILES)
    verbose: bool = option(False, "Show every bad line and every failure.", short="-v", panel=FILES)

    model: list[str] = option(
        [],
        "The model for every role: NAME[#tag][@URL], hf:PATH, replay:FILE or sim. Repeat it to take turns. "
        "[DATAGEN_MODEL]",
        panel=MODELS,
    )
    temperature: float | None = option(None, "Sampling temperature, in place of the method's.", least=0, panel=MODELS)
    top_p: float | None = option(None, "Nucleus sampling, in place of the method's.", least=0, most=1, panel=MODELS)
    max_tokens: int | None = option(
        None, "The longest answer in tokens, in place of the method's.", least=1, panel=MODELS
    )
    param: list[str] = option([], "Another request parameter, as NAME=VALUE (JSON or text).", panel=MODELS)
    prompts: Path | None = option(None, "A folder of prompts that replace shipped ones, file by file.", panel=MODELS)
    seed: int = option(0, "Draws what the method leaves to chance.", panel=MODELS)

    n: int | None = option(
        None, "Stop at so many kept rows; go through the input again for them.", short="-n", least=1, panel=LIMITS
    )
    max_calls: int | None = option(None, "Use at most so many calls, replayed ones counted too.", least=1, panel=LIMITS)
    max_failed: int = option(100, "Stop when more candidates than this have failed.", least=0, panel=LIMITS)
    concurrency: str = option("auto", "Requests in flight at one address: a number, or auto.", panel=LIMITS)
    timeout: float = option(600.0, "Seconds to wait for one answer.", least=0.1, panel=LIMITS)

    @property
    def in_flight(self) -> int | None:
        """The fixed concurrency, or None to adapt."""
        if self.concurrency == "auto":
            return None
        if not re.fullmatch("[1-9][0-9]{0,3}|10000", self.concurrency):
            raise InputError(f"--concurrency {self.concurrency}: expected auto, or a number from 1 to 10000")
        return int(self.concurrency)

    @property
    def params(self) -> dict[str, Any]:
        """The sampling parameters that were asked for, by their names in the API."""
        if self.temperature == float("inf"):
            raise InputError("--temperature inf: expected a number that JSON can hold")
        named = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        return {k: v for k, v in named.items() if v is not None} | dict(map(parse_param, self.param))


def parse_param(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value is JSON where it reads as JSON, else text."""
    from datagen.records.lines import loads_strictly

    name, equals, value = text.partition("=")
    if not equals or not name or name in ("messages", "model", "stream", "n"):
        raise InputError(f"--param {text}: expected NAME=VALUE; messages, model, stream and n are not for the taking")
    try:
        return name, loads_strictly(value)
    except ValueError:
        return name, value
