"""Command-line options as dataclasses: each field has its default, bounds and help text.

A method has its own Options; RunOptions are shared by all methods. The command line is built from both
(commands/flags.py), so an option is declared once.
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
    """Declare an option: a dataclass field that becomes a flag of the command line.

    Args:
        default: The default value; a list is copied for each instance.
        help: One sentence for `--help`; a default that is worked out later stands in brackets at its end.
        short: Another name, such as "-o".
        least: The smallest value allowed.
        most: The largest value allowed.
        panel: The heading in `--help` under which the option is listed.
    """
    metadata = {"help": help, "short": short, "least": least, "most": most, "panel": panel}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


FILES, MODELS, LIMITS = "Files", "Models", "Limits"


@dataclass(frozen=True)
class RunOptions:
    """The options of every command that calls a model."""

    output: str | None = option(
        None,
        "Output file (.jsonl), or - for standard output. [INPUT.COMMAND.jsonl]",
        short="-o",
        panel=FILES,
    )
    format: str | None = option(None, "Format of the input rows. [detected]", panel=FILES)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=FILES)
    strict: bool = option(False, "Stop at the first unusable input line.", panel=FILES)
    overwrite: bool = option(False, "Replace an existing output; recorded answers are reused at no cost.", panel=FILES)
    dry_run: bool = option(False, "Show the first request and the expected number of calls; send nothing.", panel=FILES)
    json: bool = option(False, "Print the report of the run (OUTPUT.meta.json) to standard output.", panel=FILES)
    quiet: bool = option(False, "Print only warnings and errors.", short="-q", panel=FILES)
    verbose: bool = option(False, "Print every unusable line and every failure.", short="-v", panel=FILES)

    model: list[str] = option(
        [],
        "Model for every role: NAME[#tag][@URL], hf:PATH, replay:FILE or sim. Repeat it to use several in turn. "
        "[DATAGEN_MODEL]",
        panel=MODELS,
    )
    temperature: float | None = option(None, "Sampling temperature; overrides the method's.", least=0, panel=MODELS)
    top_p: float | None = option(
        None, "Nucleus sampling (top-p); overrides the method's.", least=0, most=1, panel=MODELS
    )
    max_tokens: int | None = option(
        None, "Maximum length of an answer in tokens; overrides the method's.", least=1, panel=MODELS
    )
    param: list[str] = option([], "Additional request parameter, NAME=VALUE (JSON or text). Repeatable.", panel=MODELS)
    prompts: Path | None = option(
        None, "Folder of prompt templates; each replaces the built-in one of the same name.", panel=MODELS
    )
    seed: int = option(0, "Random seed.", panel=MODELS)

    n: int | None = option(
        None, "Stop after N accepted rows; the input is read again if needed.", short="-n", least=1, panel=LIMITS
    )
    max_calls: int | None = option(None, "Maximum number of calls, replayed ones included.", least=1, panel=LIMITS)
    max_failed: int = option(100, "Stop when more than N candidates have failed.", least=0, panel=LIMITS)
    concurrency: str = option("auto", "Maximum concurrent requests per endpoint: a number, or auto.", panel=LIMITS)
    timeout: float = option(600.0, "Timeout of one request, in seconds.", least=0.1, panel=LIMITS)

    @property
    def in_flight(self) -> int | None:
        """The fixed number of requests in flight, or None to adapt it."""
        if self.concurrency == "auto":
            return None
        if not re.fullmatch("[1-9][0-9]{0,3}|10000", self.concurrency):
            raise InputError(f"--concurrency {self.concurrency}: expected auto, or a number from 1 to 10000")
        return int(self.concurrency)

    @property
    def params(self) -> dict[str, Any]:
        """The request parameters given by the user, by their names in the API."""
        if self.temperature == float("inf"):
            raise InputError("--temperature inf: expected a number that JSON can hold")
        named = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        return {k: v for k, v in named.items() if v is not None} | dict(map(parse_param, self.param))


def parse_param(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value is read as JSON if it is valid JSON, else as text."""
    from datagen.records.lines import loads_strictly

    name, equals, value = text.partition("=")
    if not equals or not name or name in ("messages", "model", "stream", "n"):
        raise InputError(f"--param {text}: expected NAME=VALUE; messages, model, stream and n are reserved")
    try:
        return name, loads_strictly(value)
    except ValueError:
        return name, value
