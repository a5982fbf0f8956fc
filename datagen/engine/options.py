"""Command-line options as dataclasses: each field has its default, bounds and help text.

A method has its own Options; RunOptions are shared by all methods. The command line is built from both
(commands/flags.py), so an option is declared once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

from datagen.errors import InputError, unknown_value


def option(
    default: Any,
    help: str,
    *,
    long: str | None = None,
    short: str | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    file: bool = False,
    panel: str = "Method",
) -> Any:
    """Declare an option: a dataclass field that becomes a flag of the command line.

    Args:
        default: The default value; a list is copied for each instance.
        help: One sentence for `--help`; a default that is worked out later stands in brackets at its end.
        long: The name of the flag, where it is not the field's.
        short: Another name, such as "-o".
        least: The smallest value allowed.
        most: The largest value allowed.
        choices: The values allowed, where they are names (`check_choices`).
        file: Whether its text may name a file or a folder, alone or within a spec; that of a `Path` always does.
        panel: The heading in `--help` under which the option is listed.
    """
    metadata = {
        "help": help, "long": long, "short": short, "least": least, "most": most, "choices": choices, "file": file,
        "panel": panel,
    }  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_choices(options: Any) -> None:
    """Raise InputError for an option whose value is none of its choices, or no finite number."""
    for item in fields(options):
        name, value, choices = item.name.replace("_", "-"), getattr(options, item.name), item.metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise unknown_value(f"--{name}", value, choices)
        if isinstance(value, float) and not isfinite(value):
            raise InputError(f"--{name} {value}: expected a finite number")


def file_values(options: Any) -> dict[str, Any]:
    """Return the values of options that name files or folders, as far as they are given."""
    values = ((item, getattr(options, item.name)) for item in fields(options))
    return {
        item.name: value
        for item, value in values
        if value and value != item.default and (item.metadata.get("file") or isinstance(value, Path))
    }


FILES, MODELS, LIMITS = "Files", "Models", "Limits"
MAP_HELP = "Columns of the input by our names: OURS=THEIRS,..., such as prompt=question,response=answer.text."
TEMPLATE_HELP = "Values of the model's chat template as a JSON object, such as '{\"enable_thinking\": false}'."
TEMPLATE_PARAM = "chat_template_kwargs"
"""The parameter of a request that holds them, as vLLM, SGLang and llama.cpp read it."""


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
    map: str | None = option(None, MAP_HELP, panel=FILES)
    limit: int | None = option(None, "Read only the first N rows.", least=1, panel=FILES)
    strict: bool = option(False, "Stop at the first unusable input line.", panel=FILES)
    overwrite: bool = option(False, "Replace an existing output; recorded answers are reused at no cost.", panel=FILES)
    dry_run: bool = option(False, "Show the first request and the expected number of calls; send nothing.", panel=FILES)
    json: bool = option(False, "Print the report of the run (OUTPUT.meta.json) to standard output.", panel=FILES)
    quiet: bool = option(False, "Print only warnings and errors.", short="-q", panel=FILES)
    verbose: bool = option(False, "Print every unusable line and every failure.", short="-v", panel=FILES)

    model: list[str] = option(
        [],
        "Model for every role: NAME[#tag][@URL[,URL...]], a name in models.toml, hf:PATH, replay:FILE or sim. Repeat "
        "it to use several in turn. "
        "[DATAGEN_MODEL, or default in models.toml]",
        file=True,
        panel=MODELS,
    )
    temperature: float | None = option(None, "Sampling temperature; overrides the method's.", least=0, panel=MODELS)
    top_p: float | None = option(
        None, "Nucleus sampling (top-p); overrides the method's.", least=0, most=1, panel=MODELS
    )
    max_tokens: int | None = option(
        None,
        "Maximum length of an answer in tokens; overrides the method's, for a judge only where it is higher.",
        least=1,
        panel=MODELS,
    )
    param: list[str] = option([], "Additional request parameter, NAME=VALUE (JSON or text). Repeatable.", panel=MODELS)
    judge_param: list[str] = option(
        [], "Request parameter for the judge alone, NAME=VALUE, such as temperature=1. Repeatable.", panel=MODELS
    )
    chat_template_kwargs: str | None = option(None, f"{TEMPLATE_HELP} Sent with every request.", panel=MODELS)
    price: list[str] = option(
        [],
        "Price in dollars per million tokens, IN/OUT or IN/OUT/CACHED; of one of several models NAME=IN/OUT. "
        "Repeatable. [models.toml, or the list of genai-prices]",
        panel=MODELS,
    )
    prompts: Path | None = option(
        None, "Folder of prompt templates; each replaces the built-in one of the same name.", panel=MODELS
    )
    seed: int = option(0, "Random seed.", panel=MODELS)

    n: int | None = option(
        None,
        "Stop after N accepted rows; the input is read again if needed.",
        long="--rows",
        short="-n",
        least=1,
        panel=LIMITS,
    )
    max_calls: int | None = option(
        None, "Maximum number of calls; replayed ones and paid replies without an answer count.", least=1, panel=LIMITS
    )
    max_cost: float | None = option(
        None,
        "Maximum cost in dollars; replayed answers count. All prices must be known.",
        least=0,
        panel=LIMITS,
    )
    max_failed: str = option(
        "100", "Stop when more candidates have failed: a number, or a share of them such as 10%.", panel=LIMITS
    )
    shard: str | None = option(
        None,
        "Record the answers for part I of N of the input, I/N, and write no rows; caps are those of the part.",
        panel=LIMITS,
    )
    ray: str | None = option(
        None,
        "Ask on the workers of a Ray cluster: HOST:PORT of its head, auto, or local:N for N workers on this machine.",
        panel=LIMITS,
    )
    batch: bool = option(
        False,
        "Ask through the provider's batch API, at half the price: submit what can be asked now and exit; the same "
        "command later reads the answers and goes on.",
        panel=LIMITS,
    )
    batch_wait: float | None = option(
        None,
        "With --batch, wait instead of exiting: minutes after which a batch is cancelled and the rest of it is sent at "
        "once; 0 makes no new batch.",
        least=0,
        panel=LIMITS,
    )
    concurrency: str = option("auto", "Maximum concurrent requests per endpoint: a number, or auto.", panel=LIMITS)
    timeout: float = option(
        600.0, "Seconds for one whole request, to the last byte of its answer.", least=0.1, panel=LIMITS
    )
    patience: float = option(
        10.0, "Minutes to wait for a server that is busy or starting (HTTP 429, 503, 529).", least=0, panel=LIMITS
    )

    @property
    def in_flight(self) -> int | None:
        """The fixed number of requests in flight, or None to adapt it."""
        if self.concurrency == "auto":
            return None
        if not re.fullmatch("[1-9][0-9]{0,3}|10000", self.concurrency):
            raise InputError(f"--concurrency {self.concurrency}: expected auto, or a number from 1 to 10000")
        return int(self.concurrency)

    @property
    def cost_limit(self) -> Decimal | None:
        """The cap in dollars."""
        return None if self.max_cost is None else Decimal(str(self.max_cost))

    @property
    def failure_limit(self) -> int | float:
        """The most failed candidates: a whole number, or a share of all candidates from 0.0 to 1.0."""
        match = re.fullmatch(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", str(self.max_failed).strip())
        if match is None or float(match[2] or 0) > 100:
            raise InputError(f"--max-failed {self.max_failed}: expected a number such as 100, or a share such as 10%")
        return int(match[1]) if match[1] else float(match[2]) / 100

    @property
    def params(self) -> dict[str, Any]:
        """The request parameters given by the user, by their names in the API."""
        if self.temperature == float("inf"):
            raise InputError("--temperature inf: expected a number that JSON can hold")
        named = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        values = template_values(self.chat_template_kwargs)
        params = {k: v for k, v in named.items() if v is not None} | parse_params("--param", self.param)
        return {**params, TEMPLATE_PARAM: values} if values else params

    @property
    def judge_params(self) -> dict[str, Any]:
        """The request parameters given by the user for the judge alone."""
        return parse_params("--judge-param", self.judge_param)


def parse_params(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """Parse values NAME=VALUE of an option; a value is read as JSON if it is valid JSON, else as text."""
    return dict(parse_param(option, text) for text in texts)


def parse_param(option: str, text: str) -> tuple[str, Any]:
    """Parse one NAME=VALUE."""
    from datagen.records.lines import loads_strictly

    name, equals, value = text.partition("=")
    if not equals or not name or name in ("messages", "model", "stream", "n"):
        raise InputError(f"{option} {text}: expected NAME=VALUE; messages, model, stream and n are reserved")
    try:
        return name, loads_strictly(value)
    except ValueError:
        return name, value


def template_values(text: str | None) -> dict[str, Any]:
    """Parse the value of `--chat-template-kwargs`.

    Raises:
        InputError: It is no JSON object of names with texts, numbers, true, false or null.
    """
    from datagen.records.lines import loads_strictly

    try:
        values = loads_strictly(text or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(
        name.isidentifier() and isinstance(value, str | int | float | None) for name, value in values.items()
    ):
        raise InputError(
            f"--chat-template-kwargs {text}: expected a JSON object of names with texts, numbers, true, false or null, "
            "such as '{\"enable_thinking\": false}'"
        )
    return values
