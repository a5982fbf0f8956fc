"""What the headers of a response say of the rate that a server takes: so many requests or tokens, so many left, and
when all are there again.

The values come from outside: what cannot be true is ignored. What names no time is no rate, such as the remaining
requests of Azure alone. Nor is a limit of an hour or a day: it may be used up at once, and then the server refuses.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from math import nan
from time import time
from typing import NamedTuple

REQUESTS, TOKENS, INPUT, OUTPUT = "requests", "tokens", "input", "output"
"""What is counted. TOKENS are those of prompt and answer together."""
LIMIT, REMAINING, RESET = "limit", "remaining", "reset"
MINUTE = 60.0
LONGEST_RESET = 120.0
"""Seconds."""
MOST = 10**12
"""Requests or tokens. A larger number is no limit."""
LONGEST_VALUE, MOST_ITEMS = 400, 4
"""Characters of a header that are read, and limits in one."""
EPOCH = 10**9
"""Seconds. A larger reset is a time, in seconds or milliseconds since 1970, and no duration."""
DURATION = re.compile(
    r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,12})?)s)?(?:(\d{1,9}(?:\.\d{1,12})?)ms)?"
)
SECONDS = (86_400, 3_600, 60, 1, 0.001)
"""Of the units of DURATION."""
NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,12})?")
COUNT = re.compile(r"\s{0,9}(\d{1,15})(?:\.0{1,9})?\s{0,9}(?:[,;]|$)")
"""The number at the beginning of a header; policies of several windows may follow."""
ITEM = re.compile(r'\s{0,9}"([^"]{0,40})"((?:;[a-z]{1,12}=[^;,"]{1,20}|;[a-z]{1,12}="[^"]{0,40}"){1,8})\s{0,9}')
"""One limit of the header RateLimit or RateLimit-Policy: its name and its parameters."""
PARAMETER = re.compile(r';([a-z]{1,12})="?([^;,"]{0,40})')
FORMS = {
    "x-ratelimit-{part}-requests": REQUESTS,  # OpenAI, Groq, Azure and many others
    "x-ratelimit-{part}-tokens": TOKENS,
    "x-ratelimit-{part}-requests-minute": REQUESTS,  # Cerebras
    "x-ratelimit-{part}-tokens-minute": TOKENS,
    "x-ratelimit-{part}-req-minute": REQUESTS,  # Mistral
    "anthropic-ratelimit-requests-{part}": REQUESTS,
    "anthropic-ratelimit-input-tokens-{part}": INPUT,
    "anthropic-ratelimit-output-tokens-{part}": OUTPUT,
    "ratelimit-{part}": REQUESTS,  # older drafts of the IETF
    "x-ratelimit-{part}": REQUESTS,
}
"""Names of three headers, to what they count."""
NOW, POLICY = "ratelimit", "ratelimit-policy"
"""The headers of the newer drafts of the IETF: `"name";r=50;t=30` and `"name";q=100;w=60`."""
PLACES = {form.format(part=part).encode(): (form, part) for form in FORMS for part in (LIMIT, REMAINING, RESET)} | {
    name.encode(): (NOW, name) for name in (NOW, POLICY)
}
"""Name of a header, in lower case, to its form and its part."""


class Allowance(NamedTuple):
    """What one limit of a server lets through."""

    name: str
    """Tells it from the other limits of the server."""
    unit: str
    limit: float | None
    """The most at once, if it is named."""
    remaining: float | None
    """What is left of it."""
    reset: float
    """Seconds until all of it is there again."""


def read_allowances(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Allowance, ...]:
    """Return what the headers of a response allow; nothing where they say nothing that can be used."""
    values = [(PLACES[key], value) for name, value in headers if (key := name.lower()) in PLACES]
    if not values:
        return ()
    forms = defaultdict[str, dict[str, str]](dict)
    for (form, part), value in values:
        forms[form][part] = value[:LONGEST_VALUE].decode("latin-1")
    newest = list(read_items(forms.pop(NOW, {})))
    allowances = [read_form(form, parts) for form, parts in forms.items()] + newest
    return tuple(allowance for allowance in allowances if is_rate(allowance))


def is_rate(allowance: Allowance) -> bool:
    """Check that an allowance can be true, and is one of seconds or minutes; without a reset it is none."""
    _, _, limit, remaining, reset = allowance
    most = limit or remaining or 0
    return 1 <= most <= MOST and (remaining or 0) <= most and reset <= LONGEST_RESET


def read_form(form: str, parts: Mapping[str, str]) -> Allowance:
    """Read three headers."""
    limit, remaining = read_count(parts.get(LIMIT, "")), read_count(parts.get(REMAINING, ""))
    return Allowance(form, FORMS[form], limit, remaining, read_reset(parts.get(RESET, "")))


def read_items(parts: Mapping[str, str]) -> Iterator[Allowance]:
    """Read the headers RateLimit and RateLimit-Policy. A policy alone names what is allowed in each window."""
    now, policy = items_of(parts.get(NOW, "")), items_of(parts.get(POLICY, ""))
    for name in now | policy:
        state, rule = now.get(name, {}), policy.get(name, {})
        if rule.get("qu", "requests") == "requests":
            unit = TOKENS if "token" in name.lower() else REQUESTS
            limit, reset = read_count(rule.get("q", "")), read_reset(state.get("t", rule.get("w", "")))
            yield Allowance(f"{NOW} {name}", unit, limit, read_count(state.get("r", "")), reset)


def items_of(value: str) -> dict[str, dict[str, str]]:
    """Return the limits of a header of the IETF, by name, with their parameters."""
    items, place = dict[str, dict[str, str]](), 0
    while len(items) < MOST_ITEMS and (match := ITEM.match(value, place)):
        items[match[1]] = dict(PARAMETER.findall(match[2]))
        place = match.end() + 1
    return items


def read_count(value: str) -> float | None:
    """Return a number of requests or tokens, None if it is none."""
    match = COUNT.match(value)
    return float(match[1]) if match else None


def read_reset(value: str) -> float:
    """Return the seconds until a time, NaN if it is none: a number, a duration such as 6m0s, or a date."""
    value = value.strip()
    if NUMBER.fullmatch(value):
        number = float(value)
        number /= 1000 if number > 1000 * EPOCH else 1
        return max(0.0, number - time()) if number > EPOCH else number
    if value and (match := DURATION.fullmatch(value)):
        return sum(float(number or 0) * unit for number, unit in zip(match.groups(), SECONDS, strict=True))
    try:
        return max(0.0, datetime.fromisoformat(value).timestamp() - time())
    except (ValueError, OverflowError):
        return nan
