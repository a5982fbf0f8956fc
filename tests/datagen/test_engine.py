"""Guarantees of the engine on whole runs: no record is lost, no call is paid twice, a repeated run is a replay."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import digest, evolve, rows, write_seeds
from tests.server import Faults, Server, lognormal, running

SEEDS, ROUNDS = 30, 2
WANTS = {"no -n": None, "-n 30": 30, "-n beyond a pass": 80}
MODELS = {"one model": ("m",), "two models": ("m", "k")}


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server(latency=lognormal(0.002, 1.0))) as server:
        yield server


def specs(server: Server, names: tuple[str, ...] = ("m",)) -> list[str]:
    return [f"{name}@{server.url}" for name in names]


@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("n", WANTS.values(), ids=WANTS)
def test_concurrency_changes_no_byte(server: Server, n: int | None, names: tuple[str, ...]) -> None:
    seeds = write_seeds(SEEDS)
    digests = set()
    for concurrency in ("1", "16", "256"):
        output = f"at-{concurrency}/out.jsonl"
        outcome = evolve(seeds, specs(server, names), output, rounds=ROUNDS, n=n, concurrency=concurrency)
        assert outcome.status == "finished"
        assert n in (None, len(rows(output)))
        digests.add(digest(output))
    assert len(digests) == 1


@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("n", WANTS.values(), ids=WANTS)
def test_a_cap_that_is_raised_step_by_step_ends_where_no_cap_does(
    server: Server, n: int | None, names: tuple[str, ...]
) -> None:
    seeds, models = write_seeds(SEEDS), specs(server, names)
    evolve(seeds, models, "free/out.jsonl", rounds=ROUNDS, n=n)
    paid_free = server.requests
    kept_before = 0
    for cap in (60, 110, 400, None):
        outcome = evolve(seeds, models, "capped/out.jsonl", rounds=ROUNDS, n=n, max_calls=cap, concurrency="16")
        assert outcome.result["usage"]["calls"] <= (cap or 10_000)
        kept = outcome.result["funnel"]["kept"]
        assert kept >= kept_before
        kept_before = kept
    assert Path("capped/out.jsonl").read_bytes() == Path("free/out.jsonl").read_bytes()
    assert server.requests - paid_free <= 1.3 * paid_free


def test_the_same_cap_stops_at_once_and_sends_nothing(server: Server) -> None:
    seeds = write_seeds(SEEDS)
    first = evolve(seeds, specs(server), rounds=ROUNDS, max_calls=100, concurrency="16")
    paid = server.requests
    second = evolve(seeds, specs(server), rounds=ROUNDS, max_calls=100, concurrency="16")
    assert (first.reason, second.reason) == ("cap", "cap")
    assert paid <= 100
    assert server.requests == paid


def test_what_a_cap_paid_for_is_finished(server: Server) -> None:
    outcome = evolve(write_seeds(SEEDS), specs(server), rounds=ROUNDS, max_calls=120, concurrency="16")
    assert outcome.result["usage"]["calls"] == server.requests, "no half chain is paid for and not written"
    assert outcome.run["surplus"] == 0


def test_faults_change_no_row(real_seeds: Path) -> None:
    faults = Faults(0.2, retry_after=0.05, hang_seconds=3)
    with running(Server()) as clean, running(Server(faults=faults)) as faulty:
        evolve(real_seeds, f"m@{clean.url}", "clean/out.jsonl", concurrency="64")
        outcome = evolve(real_seeds, f"m@{faulty.url}", "faulty/out.jsonl", concurrency="64", timeout=1.5)
        kinds = {entry.outcome for entry in faulty.log}
        assert kinds == {"ok", *faults.kinds}
        assert faulty.early_retries() == 0
        assert faulty.paid_twice() == []
    assert outcome.status == "finished"
    assert outcome.result["funnel"]["asked"] == 175 * 4
    for name in ("out.jsonl", "out.rejected.jsonl"):
        assert Path("faulty", name).read_bytes() == Path("clean", name).read_bytes()


def test_a_second_run_sends_nothing(server: Server) -> None:
    seeds = write_seeds(SEEDS)
    evolve(seeds, specs(server), rounds=ROUNDS)
    paid, before = server.requests, digest("out.jsonl")
    outcome = evolve(seeds, specs(server), rounds=ROUNDS, overwrite=True)
    assert server.requests == paid
    assert outcome.run["requests"] == 0
    assert digest("out.jsonl") == before


def test_an_added_row_pays_for_its_own_calls_alone(server: Server) -> None:
    evolve(write_seeds(SEEDS), specs(server), rounds=ROUNDS)
    paid, before = server.requests, Path("out.jsonl").read_bytes()
    evolve(write_seeds(SEEDS + 1), specs(server), "more.jsonl", rounds=ROUNDS)
    assert 0 < server.requests - paid <= ROUNDS * 3
    assert Path("more.jsonl").read_bytes().startswith(before)


def test_more_rounds_pay_for_the_new_rounds_alone(server: Server) -> None:
    seeds = write_seeds(SEEDS)
    evolve(seeds, specs(server), rounds=2)
    paid = server.requests
    evolve(seeds, specs(server), "more.jsonl", rounds=3)
    assert server.requests - paid <= SEEDS * 3


def test_a_raised_n_begins_with_the_same_rows(server: Server) -> None:
    seeds = write_seeds(SEEDS)
    evolve(seeds, specs(server), rounds=ROUNDS, n=20, concurrency="16")
    few, paid = Path("out.jsonl").read_bytes(), server.requests
    evolve(seeds, specs(server), rounds=ROUNDS, n=50, concurrency="16")
    assert Path("out.jsonl").read_bytes().startswith(few)
    evolve(seeds, specs(server), "afresh/out.jsonl", rounds=ROUNDS, n=50, concurrency="16")
    assert Path("out.jsonl").read_bytes() == Path("afresh/out.jsonl").read_bytes()
    assert paid < server.requests


def test_n_that_is_reached_counts_the_rest_as_surplus(server: Server) -> None:
    outcome = evolve(write_seeds(SEEDS), specs(server), rounds=ROUNDS, n=20, concurrency="64")
    funnel = outcome.result["funnel"]
    assert funnel["kept"] == len(rows("out.jsonl")) == 20
    assert funnel["asked"] == 20 + sum(funnel["rejected"].values())


def test_a_model_that_never_gains_ends_short_and_names_the_rule() -> None:
    outcome = evolve(write_seeds(5), "sim:noop=1", n=10)
    assert (outcome.status, outcome.reason) == ("short", "stall")
    assert outcome.result["funnel"]["asked"] == 100
    assert outcome.result["funnel"]["kept"] == 0
    assert set(outcome.result["funnel"]["rejected"]) <= {"unchanged", "no_gain"}


def test_two_hundred_candidates_without_a_row_are_a_stall() -> None:
    outcome = evolve(write_seeds(30), "sim:leak=1", n=1000)
    assert outcome.reason == "stall"
    assert outcome.result["funnel"] == {
        "asked": 200, "kept": 0, "rejected": {"leaked": 200}, "failed": {}, "unreadable": 0, "unobtained": {},
    }  # fmt: skip


def test_failures_beyond_the_budget_stop_the_run() -> None:
    outcome = evolve(write_seeds(50), "sim:malformed=1", max_failed=10)
    assert outcome.reason == "failures"
    assert outcome.result["funnel"]["failed"] == {"unparsed answer": 11}


def test_a_failed_call_is_asked_again_by_the_next_run_and_by_nothing_else(server: Server) -> None:
    seeds = write_seeds(SEEDS)
    server.faults = Faults(1.0, ("empty",), most_in_a_row=3)
    first = evolve(seeds, specs(server), rounds=1, max_failed=1000)
    assert first.status == "incomplete"
    assert first.result["funnel"]["failed"] == {"empty answer": SEEDS}
    assert server.requests == 3 * SEEDS
    again = evolve(seeds, specs(server), rounds=1, max_failed=1000)
    rewrites = [entry for entry in server.log if entry.task not in ("answer", "evolve/equal")]
    assert [entry.attempt for entry in rewrites].count(4) == SEEDS
    assert len(rewrites) == 4 * SEEDS
    assert again.status == "incomplete", "the next stage now fails three times"
    while evolve(seeds, specs(server), rounds=1, max_failed=1000).status == "incomplete":
        pass
    server.faults = Faults()
    evolve(seeds, specs(server), "clean/out.jsonl", rounds=1)
    assert Path("out.jsonl").read_bytes() == Path("clean/out.jsonl").read_bytes()


def test_a_bad_line_is_kept_with_its_place_and_costs_nothing_else(server: Server) -> None:
    write_seeds(3)
    Path("torn.jsonl").write_bytes(Path("seeds.jsonl").read_bytes() + b'{"prompt": "tor')
    evolve(Path("seeds.jsonl"), specs(server), "whole/out.jsonl", rounds=1)
    outcome = evolve(Path("torn.jsonl"), specs(server), rounds=1)
    assert Path("out.jsonl").read_bytes() == Path("whole/out.jsonl").read_bytes()
    (bad,) = [row for row in rows("out.rejected.jsonl") if row["stage"] == "read"]
    assert bad["record"] == {"source": "torn.jsonl", "line": 4, "raw": '{"prompt": "tor'}
    assert outcome.result["funnel"]["unreadable"] == 1


def test_equal_records_under_way_share_their_requests(server: Server) -> None:
    Path("twice.jsonl").write_text('{"prompt": "Say it."}\n' * 2)
    outcome = evolve(Path("twice.jsonl"), specs(server), rounds=1)
    attempts = [(entry.key, entry.attempt) for entry in server.log]
    assert len(attempts) == len(set(attempts))
    assert outcome.result["funnel"]["asked"] == 2


def test_a_prompt_that_comes_up_twice_is_kept_once(server: Server) -> None:
    server.answer = lambda model, messages, sample, task: {
        "answer": "A fine answer.", "evolve/equal": "Verdict: not equal"
    }.get(task, "Always the same rewrite?")  # fmt: skip
    outcome = evolve(write_seeds(5), specs(server), rounds=1)
    assert outcome.result["funnel"]["kept"] == 1
    assert outcome.result["funnel"]["rejected"] == {"duplicate": 4}
