"""`--ray`: workers fill the journal of the driver, and it writes the bytes of one machine, whoever is lost."""

import asyncio
import socket
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import datagen
from datagen.engine.job import open_job, run_job
from datagen.engine.options import RunOptions
from datagen.engine.ray_cluster import parse_ray, share
from datagen.engine.ray_worker import UNSETTLED_PER_SLOT, Assignment, Order, Plan, Worker
from datagen.errors import InputError, Outage
from datagen.generators.evolve import Evolve
from datagen.generators.self_instruct import SelfInstruct
from datagen.records.record import Record
from datagen.strategies.direct import Direct
from tests.datagen.test_cli import datagen as run_datagen
from tests.datagen.test_kills import ThreeBadAnswers
from tests.datagen.test_shards import COMMANDS, replies
from tests.jobs import Quiet, digest, evolve, perform, respond, write_seeds
from tests.ray_here import RayHere, ray_here
from tests.server import Faults, Server, running

__all__ = ["ray_here"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""A worker that is lost closes nothing."""
RAY: dict[str, Any] = {"ray": "local:2", "concurrency": "8"}
EACH = share(8, 2)[1]
"""Requests in flight of each worker."""


@pytest.fixture
def seeds() -> Path:
    return write_seeds(14)


def delivered(server: Server) -> int:
    """Return the number of answers that were paid for."""
    return sum(entry.delivered for entry in server.log)


@pytest.mark.parametrize("name", COMMANDS)
def test_workers_give_the_bytes_of_one_machine(name: str, seeds: Path, ray_here: RayHere) -> None:
    COMMANDS[name](seeds, "whole/out.jsonl")
    COMMANDS[name](seeds, "ray/out.jsonl", **RAY)
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
    assert replies("ray") == replies("whole")
    assert len(ray_here.actors) == 2


@pytest.mark.parametrize("limits", [{"n": 12}, {"n": 60}, {"max_calls": 150}, {"max_calls": 40}, {"max_calls": 3}])
def test_limits_end_the_run_where_they_do_on_one_machine(
    limits: dict[str, Any], seeds: Path, ray_here: RayHere
) -> None:
    with running(Server(latency=0.005)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, **limits)
        one = delivered(server)
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **limits, **RAY)
        workers = delivered(server) - one
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
    assert workers <= limits.get("max_calls", workers)


def test_what_is_recorded_is_not_sent_again(seeds: Path, ray_here: RayHere) -> None:
    with running(Server(latency=0.002)) as server:
        whole = evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        before = len(server.log)
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, max_calls=60)
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **RAY)
        assert len(server.log) - before == whole.run["requests"]
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")


def test_failed_calls_are_asked_again_by_the_next_run_alone(seeds: Path, ray_here: RayHere) -> None:
    with running(ThreeBadAnswers()) as server:
        whole = evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        assert whole.result["funnel"]["failed"]
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **RAY)
        assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **RAY)
        assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
        assert not server.paid_twice() or max(Counter(server.paid_twice()).values()) == 1


@pytest.mark.parametrize("run", [{}, {"n": 12}])
def test_lost_workers_are_replaced_and_little_is_paid_again(
    run: dict[str, Any], seeds: Path, ray_here: RayHere
) -> None:
    ray_here.most_losses = 10
    with running(Server(latency=0.01)) as server:
        whole = evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, **run)
        before = len(server.log)
        outcome = evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **run, **RAY)
        paid = Counter((entry.key, entry.attempt) for entry in server.log[before:] if entry.delivered)
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
    assert ray_here.losses > 0
    again = paid.total() - len(paid)
    assert again <= ray_here.losses * UNSETTLED_PER_SLOT * EACH, "more than the bound that the docs state"
    if not run:
        assert len(paid) == whole.run["requests"]
    assert any("was lost, with up to" in note for note in outcome.notes)


def test_caps_hold_when_workers_are_lost_and_a_higher_one_continues(ray_here: RayHere) -> None:
    """A call for each prompt, so that all of the cap is used."""
    prompts = write_seeds(120)
    with running(Server(latency=0.01)) as server:
        respond(prompts, f"m@{server.url}", "whole/out.jsonl")
        before, ray_here.most_losses = delivered(server), 8
        for most in (60, 60, 100):
            outcome = respond(prompts, f"m@{server.url}", "ray/out.jsonl", max_calls=most, **RAY)
            assert outcome.reason == "cap"
            assert most - 3 - 8 * UNSETTLED_PER_SLOT * EACH < delivered(server) - before <= most
        respond(prompts, f"m@{server.url}", "ray/out.jsonl", **RAY)
    assert ray_here.losses > 2
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")


def test_a_worker_sends_no_more_than_the_driver_records() -> None:
    """Its segments are never recorded here: it stops after as many requests as may be without a record."""
    prompts = write_seeds(60)

    async def ask(url: str) -> int:
        run = RunOptions(model=[f"m@{url}"])
        with open_job(Direct, str(prompts), Direct.options_type(), run, {}) as job:
            worker, plan = Worker(), Plan(job.method, run, job.roles, job.tags, 4, {})
            records = [item.for_pass(0, 0) for item in job.reader.read() if isinstance(item, Record)]
        await worker.begin(plan)
        assignments = [Assignment(number, record, {}, 3) for number, record in enumerate(records)]
        await worker.exchange(Order(assignments, 0, 12, None, is_last=False))
        for _ in range(3):
            await worker.exchange(Order([], 0, 12, None, is_last=False))
        sent = len(server.log)
        report = await worker.exchange(Order([], 0, 12, None, is_last=True))
        assert report.end == "interrupted"
        return sent

    with running(Server()) as server:
        assert asyncio.run(ask(server.url)) == len(server.log) == 12


@pytest.mark.parametrize("cap", [0.002, 0.01, 0.03])
def test_dollars_are_leased_and_never_exceeded(cap: float, seeds: Path, ray_here: RayHere) -> None:
    price: dict[str, Any] = {"price": ["1/2"], "max_tokens": 200}
    with running(Server(latency=0.005)) as server:
        whole = evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, **price)
        one, before, ray_here.most_losses = Decimal(str(whole.run["paid"])), delivered(server), 4
        outcome = evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, max_cost=cap, **price, **RAY)
        asked_for = delivered(server) - before
        assert 0 < outcome.run["paid"] <= cap
        assert asked_for * one / before <= Decimal(str(cap)) * 2
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **price, **RAY)
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")


def test_a_driver_that_is_lost_is_started_again(seeds: Path, ray_here: RayHere) -> None:
    """What its workers may have paid for is noted before it is sent, and counts towards the cap."""
    with running(Server(latency=0.01)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        before = delivered(server)

        async def lose_driver() -> None:
            options = RunOptions(output="ray/out.jsonl", model=[f"m@{server.url}"], max_calls=150, **RAY)
            with open_job(Evolve, str(seeds), Evolve.options_type(rounds=2), options, {}) as job:
                task = asyncio.ensure_future(run_job(job, Quiet()))
                while delivered(server) - before < 25:
                    await asyncio.sleep(0.005)
                for actor in ray_here.actors:
                    actor.lose()
                task.cancel()
                await asyncio.wait({task})

        Path("ray").mkdir()
        asyncio.run(lose_driver())
        outcome = evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, max_calls=150, **RAY)
        assert outcome.unrecorded > 0
        assert delivered(server) - before <= 150
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **RAY)
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")


def test_servers_that_fail_change_nothing(seeds: Path, ray_here: RayHere) -> None:
    with running(Server(latency=0.002)) as clean:
        evolve(seeds, f"m@{clean.url}", "whole/out.jsonl", rounds=2)
    with running(Server(latency=0.002, faults=Faults(0.2, retry_after=0.02, hang_seconds=0.5))) as server:
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, **RAY)
    assert Path("ray/out.jsonl").read_bytes() == Path("whole/out.jsonl").read_bytes()


def test_the_limits_of_a_server_are_those_of_all_workers(seeds: Path, ray_here: RayHere) -> None:
    with running(Server(latency=0.02)) as server:
        outcome = evolve(seeds, f"m@{server.url}", rounds=2, **RAY)
    assert EACH < server.peak <= 8
    assert outcome.run["requests"] == len(server.log), "the requests of workers are counted"


@pytest.mark.parametrize(("total", "workers"), [(8, 2), (3, 2), (40, 3), (1000, 7), (2, 1)])
def test_shares_are_together_no_more_than_the_whole(total: int, workers: int) -> None:
    own, each = share(total, workers)
    assert own + workers * each <= total


def test_an_outage_ends_the_run_when_no_worker_is_left(seeds: Path, ray_here: RayHere) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    outcome = evolve(seeds, f"m@{address}", rounds=2, **RAY)
    assert outcome.reason == "outage"
    assert isinstance(outcome.error, Outage) and "No worker is left" in str(outcome.error)


def test_another_version_on_a_node_is_refused(seeds: Path, ray_here: RayHere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datagen.engine.ray_worker.Worker.open", lambda self: ("0.0.1", 1))
    with pytest.raises(InputError, match=f"datagen 0.0.1 is installed on a node, and {datagen.__version__} here"):
        raise evolve(seeds, "sim", **RAY).error or AssertionError


def test_what_cannot_be_divided_says_why(seeds: Path) -> None:
    with pytest.raises(InputError, match="depends on the rows before"):
        perform(SelfInstruct, seeds, "sim", "out.jsonl", SelfInstruct.options_type(), n=5, ray="local:2")
    Path("r.jsonl").write_text('{"reply": "x"}\n')
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"ray": "local:2", "shard": "1/2"}, "use one of them"),
        ({"ray": "local:0"}, "expected HOST:PORT"),
        ({"ray": "local:2", "concurrency": "1"}, "cannot be divided"),
    )
    for options, says in cases:
        with pytest.raises(InputError, match=says):
            evolve(seeds, "sim", **options)
    ran = run_datagen("judge", str(seeds), "--by", "verify", "--ray", "local:2")
    assert ran.returncode == 2


def test_nothing_at_an_address_is_one_line() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    ran = run_datagen("evolve", str(write_seeds(2)), "--model", "sim", "--ray", f"127.0.0.1:{port}")
    assert ran.returncode == 1
    assert f"error: --ray 127.0.0.1:{port}: nothing answers there" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", ["", "local", "local:", "local:0", "ray://a:1", "a", "a:b", "http://a:1"])
def test_an_address_of_ray_has_a_port(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST:PORT"):
        parse_ray(text)
