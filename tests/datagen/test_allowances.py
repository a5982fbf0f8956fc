"""What headers say of the rate that a server takes, in every spelling; and what they cannot mean."""

from datetime import UTC, datetime, timedelta

import pytest

from datagen.llm import allowances as module
from datagen.llm.allowances import INPUT, OUTPUT, REQUESTS, TOKENS, read_allowances

NOW = 1_900_000_000


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", lambda: float(NOW))


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.upper().encode(), value.encode()) for name, value in headers.items()]


def soon(seconds: float) -> str:
    return (datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def three(form: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {form.format(part): value for part, value in values.items()}


OPENAI, OLDER = "x-ratelimit-{}-requests", "ratelimit-{}"
ANTHROPIC = "anthropic-ratelimit-{}-{{}}"


@pytest.mark.parametrize(
    ("headers", "units", "numbers"),
    [
        (three(OPENAI, "500", "499", "120ms"), [REQUESTS], (500, 499, 0.12)),
        (three("x-ratelimit-{}-tokens", "30000", "29000", "1m0.5s"), [TOKENS], (30_000, 29_000, 60.5)),
        (three("x-ratelimit-{}-tokens-minute", "30000", "29000", "12.5"), [TOKENS], (30_000, 29_000, 12.5)),
        (three("x-ratelimit-{}-req-minute", "60", "59", "1"), [REQUESTS], (60, 59, 1)),
        (three(ANTHROPIC.format("requests"), "50", "9", soon(40)), [REQUESTS], (50, 9, 40)),
        (three(ANTHROPIC.format("input-tokens"), "50000", "0", soon(-9)), [INPUT], (50_000, 0, 0)),
        (three(ANTHROPIC.format("output-tokens"), "8000", "8000", soon(1)), [OUTPUT], (8000, 8000, 1)),
        (three(OLDER, "100, 100;w=60", "7", "60"), [REQUESTS], (100, 7, 60)),
        (three("x-ratelimit-{}", "10", "7", str(NOW + 30)), [REQUESTS], (10, 7, 30)),
        (three("x-ratelimit-{}", "10", "7", f"{1000 * (NOW + 30)}"), [REQUESTS], (10, 7, 30)),
        ({"ratelimit": '"default";r=50;t=30'}, [REQUESTS], (None, 50, 30)),
        ({"ratelimit": '"a";r=5;t=3', "ratelimit-policy": '"a";q=10;w=4'}, [REQUESTS], (10, 5, 3)),
        ({"ratelimit-policy": '"a";q=10;w=4;pk=:cHM=:'}, [REQUESTS], (10, None, 4)),
        ({"ratelimit": '"tokens";r=50;t=30, "burst";r=5;t=1'}, [TOKENS, REQUESTS], (None, 50, 30)),
    ],
)
def test_every_spelling(
    headers: dict[str, str], units: list[str], numbers: tuple[float | None, float | None, float]
) -> None:
    allowances = read_allowances(raw(headers))
    assert [allowance.unit for allowance in allowances] == units
    limit, remaining, reset = numbers
    assert allowances[0].limit == limit and allowances[0].remaining == remaining
    assert allowances[0].reset == pytest.approx(reset)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-length": "12"},
        {"x-ratelimit-remaining-requests": "12"},
        three(OPENAI, "14400", "14370", "2h59.56s"),  # of a day
        three(OPENAI, "500", "501", "1s"),
        three(OPENAI, "0", "0", "1s"),
        three(OPENAI, "-5", "-5", "1s"),
        three(OPENAI, "many", "1e9", "1s"),
        three(OPENAI, "9" * 30, "9" * 30, "1s"),
        three(OPENAI, "500", "0", "-1"),
        three(OPENAI, "500", "0", "soon"),
        three(OPENAI, "500", "0", "nan"),
        three(OPENAI, "500", "0", "9" * 300),
        three(OPENAI, "500", "0", "9999-12-31T23:59:59Z"),
        {"ratelimit": "default;r=50"},
        {"ratelimit": '"a";r=50;t=' + "9" * 1000},
        {"ratelimit-policy": '"a";q=100;w=60;qu="content-bytes"'},
        {"ratelimit": '"' * 100_000},
        {"ratelimit": '"a";r=1;t=999, ' * 10_000},
    ],
)
def test_what_cannot_be_true_or_is_no_rate_is_ignored(headers: dict[str, str]) -> None:
    assert read_allowances(raw(headers)) == ()
