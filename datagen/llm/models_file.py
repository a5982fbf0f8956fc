"""The file models.toml in the working folder: the default model, and models with an address, a key and settings.

default = "teacher"                                # a model, or a list of models that take turns

[models.teacher]                                   # --model teacher
name = "deepseek-chat"                             # as the server knows it; without it the name above
url = "https://api.deepseek.com/v1"                # or a list: servers with the same model
key = "DEEPSEEK_API_KEY"                           # the environment variable that holds the key
params = {temperature = 0.7}

The table FIELDS lists all keys. The file holds names of variables and never a key, so that it can be shared.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from datagen.errors import InputError
from datagen.plugins import REFERENCE

MODELS_FILE = "models.toml"
ALIAS = re.compile(r"[\w.-]+")
"""What `--model` takes and no spec looks like, but `sim`."""
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
HEADER = re.compile(r"[A-Za-z0-9-]+")
HEADER_VALUE = re.compile(r"[ -~]+")
SECRET_NAME = re.compile(r"auth|key|token|secret|password|credential|cookie", re.IGNORECASE)
"""Names of headers and of values of a query that hold a key."""
SECRET = re.compile(r"^(?:bearer |basic |sk-|sk_|gsk_|csk-|xai-|hf_|nvapi-|pplx-|fw_|tgp_|AIza|AKIA)", re.IGNORECASE)
"""How keys of many services begin."""
RESERVED = ("messages", "model", "stream", "n")
"""Parameters of a request that are not the user's."""
PRICES = ("input", "output", "cached", "batch")
LIMITS = {"concurrency": 10_000, "requests_per_minute": 10**6, "tokens_per_minute": 10**9}
"""What a user may limit, and the highest number of each."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the requests to a server hold beside the call."""

    key: str = ""
    """The environment variable that holds the key; empty for the usual one of the host."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """`$VARIABLE` stands for the value of an environment variable."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Of the URL."""


@dataclass(frozen=True, slots=True)
class FileModel:
    """A model of models.toml."""

    name: str
    tag: str = ""
    url: tuple[str, ...] = ()
    """As written, not checked yet; empty for OPENAI_BASE_URL or the OpenAI API."""
    access: Access = Access()
    params: Mapping[str, Any] = field(default_factory=dict)
    """Request parameters."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """LIMITS to the most at each of its addresses."""
    price: Mapping[str, float] = field(default_factory=dict)
    """PRICES to dollars per million tokens; `batch` is the share of these that a request in a batch costs."""


class ModelsFile(NamedTuple):
    """What models.toml holds."""

    default: list[str]
    models: dict[str, FileModel]
    """By the name that `--model` takes."""


class Field(NamedTuple):
    """A key of a model in models.toml."""

    fits: Callable[[Any], bool]
    expected: str
    """What it holds, for messages."""


def is_text(value: Any) -> bool:
    """Check that a value is a text of one line, not empty."""
    return isinstance(value, str) and value.isprintable() and bool(value)


def is_table(value: Any, fits_name: Callable[[str], object], fits: Callable[[Any], object]) -> bool:
    """Check the names and values of a table."""
    return isinstance(value, dict) and all(fits_name(name) and fits(item) for name, item in value.items())


def is_number(value: Any) -> bool:
    """Check that a value is a price."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0


def is_limit(name: str, value: Any) -> bool:
    """Check a limit of the user."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LIMITS.get(name, 0)


def is_json(value: Any) -> bool:
    """Check that JSON can hold a value; TOML also has dates, inf and nan."""
    if isinstance(value, dict | list):
        return all(map(is_json, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))


FIELDS = {
    "name": Field(is_text, "the name that the server knows, a text"),
    "tag": Field(lambda value: is_text(value) and "@" not in value, "a text without @"),
    "url": Field(
        lambda value: is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value))),
        "an address, or a list of addresses",
    ),
    "key": Field(
        lambda value: isinstance(value, str) and bool(VARIABLE.fullmatch(value)) and not SECRET.search(value),
        'the name of the environment variable that holds the key, such as "DEEPSEEK_API_KEY"; the key itself belongs '
        "in no file: export it in that variable",
    ),
    "headers": Field(
        lambda value: is_table(value, HEADER.fullmatch, lambda item: is_text(item) and HEADER_VALUE.fullmatch(item)),
        "a table of names and texts",
    ),
    "query": Field(lambda value: is_table(value, is_text, is_text), "a table of names and texts"),
    "params": Field(
        lambda value: is_table(value, lambda name: name not in RESERVED, is_json),
        f"a table of request parameters; {', '.join(RESERVED)} are reserved",
    ),
    "limits": Field(
        lambda value: isinstance(value, dict) and all(is_limit(name, number) for name, number in value.items()),
        "{requests_per_minute = N, tokens_per_minute = N, concurrency = N}, the last at most 10000",
    ),
    "price": Field(
        lambda value: is_table(value, lambda name: name in PRICES, is_number) and {"input", "output"} <= value.keys(),
        "dollars per million tokens, such as {input = 0.3, output = 1.2, cached = 0.03}; batch is a share of these",
    ),
}


def read_models_file() -> ModelsFile:
    """Read models.toml in the working folder; it is empty where there is none.

    Raises:
        InputError: It cannot be read, holds something unknown, or holds a key.
    """
    path = Path(MODELS_FILE)
    if not path.exists():
        return ModelsFile([], {})
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{MODELS_FILE}: cannot be read: {error}") from None
    refuse_unknown(MODELS_FILE, table, ("default", "models"))
    value, models = table.get("default", []), table.get("models", {})
    default = [value] if isinstance(value, str) else value
    if not isinstance(default, list) or not all(isinstance(model, str) and model for model in default):
        raise InputError(f"{MODELS_FILE}: default is the name of a model, or a list of names")
    if code := next(filter(REFERENCE.fullmatch, default), None):
        raise InputError(f"{MODELS_FILE}: default: {code} is code, which no file names for you: --model {code}")
    if not isinstance(models, dict):
        raise InputError(f"{MODELS_FILE}: models: expected tables, such as [models.teacher]")
    return ModelsFile(default, {alias: read_model(alias, model) for alias, model in models.items()})


def read_model(alias: str, table: Any) -> FileModel:
    """Read a table [models.ALIAS]."""
    place = f"{MODELS_FILE}: [models.{alias}]"
    if not ALIAS.fullmatch(alias) or alias == "sim":
        raise InputError(f"{place}: expected a name of letters, digits, '.', '_' and '-', and not sim")
    if not isinstance(table, dict):
        raise InputError(f"{place}: expected a table with {', '.join(FIELDS)}")
    refuse_unknown(place, table, FIELDS)
    for key, (fits, expected) in FIELDS.items():
        if key in table and not fits(table[key]):
            raise InputError(f"{place} {key}: expected {expected}")
    if secret := next(secrets_in(table), ""):
        raise InputError(
            f"{place} {secret}: looks like a key, which belongs in no file. Export it in a variable and write "
            '`key = "VARIABLE"`; a header may hold "$VARIABLE"'
        )
    url = table.get("url", [])
    return FileModel(
        table.get("name", alias),
        table.get("tag", ""),
        (url,) if isinstance(url, str) else tuple(url),
        Access(table.get("key", ""), table.get("headers", {}), table.get("query", {})),
        table.get("params", {}),
        table.get("limits", {}),
        table.get("price", {}),
    )


def secrets_in(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the places of values that look like a key."""
    for name, value in table.get("headers", {}).items():
        is_variable = value.startswith("$") and VARIABLE.fullmatch(value[1:])
        if not is_variable and (SECRET_NAME.search(name) or SECRET.search(value) or value.startswith("$")):
            yield f"headers.{name}"
    for name, value in table.get("query", {}).items():
        if SECRET_NAME.search(name) or SECRET.search(value):
            yield f"query.{name}"
    for name, value in table.get("params", {}).items():
        if isinstance(value, str) and SECRET.search(value):
            yield f"params.{name}"


def refuse_unknown(place: str, table: Mapping[str, Any], expected: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Raise InputError for a key that is none of those expected."""
    if unknown := sorted(table.keys() - set(expected)):
        raise InputError(f"{place}: unknown key {unknown[0]}; expected {', '.join(expected)}")
