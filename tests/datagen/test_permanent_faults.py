"""One prompt that always fails: it fails alone, as one row, at every concurrency and in every later run."""

import json

import pytest

from datagen.llm import limiter
from tests.jobs import rows
from tests.permanent import ANSWERED, FAULTS, MARK, REFUSED, poisoned
from tests.reruns import recorded, run_three_times

PROMPTS, PLACE = 7, 2
pytestmark = pytest.mark.usefixtures("one_certificate")
QUICK = ("403", "closed")


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "FIRST_BACKOFF", 0.002)


def check_rows(folder: str, name: str) -> None:
    """Check that all but one are kept, and that one failed, once."""
    kept, (failed,) = rows(f"{folder}/x.jsonl"), rows(f"{folder}/x.rejected.jsonl")
    assert [row["response"][:24] for row in kept] == [
        f"The answer to number {number} i"[:24] for number in range(PROMPTS) if number != PLACE
    ]
    assert failed["status"] == "failed" and MARK.decode() in failed["record"]["prompt"], name


def check(name: str, concurrency: int) -> bytes:
    """Run three times, and check the rows and what is recorded; return the kept rows."""
    folder = f"{name}-{concurrency}"
    prompts = [f"{MARK.decode() if number == PLACE else 'ask'} {number}" for number in range(PROMPTS)]
    codes = {0, 5} if name in ANSWERED | REFUSED else {5}
    kept = run_three_times(folder, prompts, lambda body: poisoned(name, body), concurrency, codes=codes)
    check_rows(folder, name)
    for status, body in recorded(folder):
        assert status == 200 or (status in (400, 403, 404, 429) and name in REFUSED), f"{status} is recorded"
        assert status != 200 or json.loads(body)["choices"], "what holds no answer is not recorded"
    return kept


@pytest.mark.parametrize("name", QUICK)
def test_one_prompt_fails_alone_and_rows_never_fall(name: str) -> None:
    assert check(name, 1) == check(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - set(QUICK)))
def test_one_prompt_fails_alone_whatever_its_fault(name: str) -> None:
    assert check(name, 1) == check(name, 64)
