"""Provider batches fill the journal: the same bytes as one by one, nothing lost, nothing paid for twice."""

from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen.commands.main import load_methods
from datagen.engine.job import Outcome
from tests.batch_server import STEPS, BatchServer, Plan
from tests.datagen.test_cli import datagen
from tests.jobs import digest, evolve, perform, respond, rows, write_seeds
from tests.judge.rows import answers_by_label
from tests.server import Message, Server, running

MOST_RUNS = 40
EACH_STEP = "before upload,after upload,before create,list,after create,list,late create,look,download,read".split(",")
PRICE = ["1/2/0.1"]
KILLED: dict[str, Any] = {"rounds": 1, "batch": True, "timeout": 20.0}
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.jobs", "datagen.llm.batches.layer", "datagen.llm.batches.client"])


@pytest.fixture
def seeds() -> Path:
    """Seeds of which some are there twice."""
    path = write_seeds(8)
    path.write_bytes(path.read_bytes() + b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    return path


def come_back(command: Callable[..., Outcome], **run: Any) -> list[Outcome]:
    """Give a command again until it does not end with a batch; return how each run ended."""
    outcomes: list[Outcome] = []
    while not outcomes or outcomes[-1].reason == "batch":
        assert len(outcomes) < MOST_RUNS
        outcomes.append(command(batch=True, **run))
    return outcomes


def evolved(seeds: Path, server: Server, output: str = "batch/out.jsonl", **run: Any) -> Outcome:
    return evolve(seeds, f"m@{server.url}", output, **{"rounds": 1, "timeout": 20.0, **run})


def one_by_one(seeds: Path, **run: Any) -> str:
    """Run without batches; return the digest."""
    with running(Server()) as server:
        evolved(seeds, server, "whole/out.jsonl", **run)
    return digest("whole/out.jsonl")


def answers_of(server: BatchServer) -> list[tuple[str, int]]:
    """Check that nothing was paid for twice; return the calls that were answered."""
    assert server.paid_twice() == []
    return [(entry.key, entry.attempt) for entry in server.log]


def test_batches_give_the_bytes_of_calls_one_by_one(seeds: Path) -> None:
    expected = one_by_one(seeds, rounds=2)
    with running(BatchServer()) as server:
        outcomes = come_back(lambda **run: evolved(seeds, server, rounds=2, **run))
        answered = answers_of(server)
        assert not Path("batch/out.jsonl").exists() or outcomes[-1].reason is None
        assert outcomes[-1].run["requests"] == 0
        assert sum(outcome.run["requests"] for outcome in outcomes) == 1, "only the first call is sent at once"
        pages = server.submissions.copy()
        assert evolved(seeds, server, rounds=2, batch=True).run["requests"] == 0
        assert server.submissions == pages, "a finished run asks the server nothing"
        assert len(answered) == len(server.log)
    assert digest("batch/out.jsonl") == expected


def run_killed(server: BatchServer, step: str, seeds: Path, output: str) -> bool:
    """Run the command in a process that is killed at a step, or after some time; return whether it was killed."""
    server.kill_at, before = step, server.kills
    run = PROCESSES.Process(target=evolve, args=(seeds, f"m@{server.url}", output), kwargs=KILLED)
    run.start()
    server.client = run.pid or 0
    run.join()
    server.client, server.kill_at = 0, ""
    assert run.exitcode == 0 or server.kills > before, "the run failed by itself"
    return server.kills > before


def kill_and_compare(seeds: Path, steps: list[str], number: int, *, can_delete: bool = True) -> int:
    """Kill a command at one step after the other until it has ended; return the number of kills."""
    output, runs = f"killed-{number}/out.jsonl", 0
    with running(BatchServer(can_delete=can_delete)) as server:
        while not Path(output).exists():
            run_killed(server, steps[runs % len(steps)], seeds, output)
            runs += 1
            assert runs < 5 * MOST_RUNS
        answers_of(server)
        submitted = Counter(row["custom_id"] for batch in server.batches.values() for row in batch["rows"])
        assert set(submitted.values()) == {1}, "a request was submitted twice"
        assert digest(output) == digest("whole/out.jsonl")
        return server.kills


def test_a_kill_at_each_step_loses_no_batch_and_pays_for_none_twice(seeds: Path) -> None:
    one_by_one(seeds)
    assert kill_and_compare(seeds, EACH_STEP, 0) >= len(EACH_STEP)


@pytest.mark.slow
def test_a_hundred_kills_lose_no_batch_and_pay_for_none_twice(seeds: Path) -> None:
    one_by_one(seeds)
    kills, number, chance = 0, 0, Random(1)
    while kills < 100:
        number += 1
        kills += kill_and_compare(seeds, chance.sample(STEPS, len(STEPS)) + [""] * (number % 3), number)
    print(f"{kills} kills in {number} outputs")


@pytest.mark.parametrize("name", ["vote", "judge", "pairs"])
def test_chains_of_commands_give_the_same_bytes(name: str, seeds: Path) -> None:
    """A vote, scores of its answers, and pairs of the scores: each step on what the one before has written."""
    steps: dict[str, Callable[..., Outcome]] = {
        "vote": lambda model, folder, **run: respond(seeds, model, f"{folder}/vote.jsonl", strategy="vote", k=3, **run),
        "samples": lambda model, folder, **run: respond(seeds, model, f"{folder}/samples.jsonl", k=3, **run),
        "judge": lambda model, folder, **run: judged(
            Path(folder, "samples.jsonl"), model, f"{folder}/judge.jsonl", **run
        ),
        "pairs": lambda model, folder, **run: paired(Path(folder, "judge.jsonl"), f"{folder}/pairs.jsonl"),
    }
    wanted = {"vote": ["vote"], "judge": ["samples", "judge"], "pairs": ["samples", "judge", "pairs"]}[name]
    for kind, folder in ((Server, "whole"), (BatchServer, "batch")):
        with running(kind(play)) as server:
            for step in wanted:
                model = f"{'j' if step == 'judge' else 'm'}@{server.url}"
                if kind is Server or step == "pairs":
                    steps[step](model, folder)
                else:
                    come_back(lambda step=step, model=model, folder=folder, **run: steps[step](model, folder, **run))
                    answers_of(server)
    assert rows(f"batch/{name}.jsonl"), "nothing is compared"
    assert digest(f"batch/{name}.jsonl") == digest(f"whole/{name}.jsonl")


def play(model: str, messages: list[Message], sample: int, task: str) -> str:
    """Give one of three answers to each question, and points to each answer."""
    if task.startswith("judge/"):
        points = {label: Random(text).randint(1, 9) for label, text in answers_by_label(messages).items()}
        return "\n".join(f"{label} helpful: {number}" for label, number in points.items())
    dice = Random(f"{messages} {sample}")
    return f"Let me see. {dice.random()}\n\nAnswer: {dice.randint(1, 3)}"


def judged(samples: Path, model: str, output: str, **run: Any) -> Outcome:
    method = load_methods("judge")["score"]
    return perform(method, samples, model, output, method.options_type(), **run)


def paired(ranked: Path, output: str) -> Outcome:
    method = next(iter(load_methods("pairs").values()))
    return perform(method, ranked, [], output, method.options_type())


FAULTS = {
    "slow": [Plan(looks=2)] * 3,
    "expired": [Plan(end="expired", answered=0.5), Plan(end="expired", answered=0.0)],
    "cancelled": [Plan(end="cancelled", answered=0.7)],
    "failed later": [Plan(end="failed", answered=0.3)],
    "errors": [Plan(errors=0.5), Plan(errors=0.3, error_status=429)],
    "odd lines": [Plan(odd=True)] * 9,
    "all": [Plan(looks=1, end="expired", answered=0.6, errors=0.3, odd=True)] * 2,
    "created, and an error sent": [Plan(create_status=500)] * 2,
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_batches_change_nothing(name: str, seeds: Path) -> None:
    expected = one_by_one(seeds)
    with running(BatchServer(plans=list(FAULTS[name]))) as server:
        outcomes = come_back(lambda **run: evolved(seeds, server, **run))
        answers_of(server)
        assert max(server.lines.values()) == 1
        assert all(outcome.error is None for outcome in outcomes)
    assert digest("batch/out.jsonl") == expected
    notes = " ".join(note for outcome in outcomes for note in outcome.notes)
    assert ("odd lines in its results" in notes) == (name in ("odd lines", "all")), notes
    assert ("not answered" in notes) == (name in ("expired", "cancelled", "failed later", "all")), notes


def test_a_call_that_three_batches_do_not_answer_has_failed_and_is_asked_again_by_the_next_command(seeds: Path) -> None:
    with running(BatchServer(plans=[Plan(end="expired", answered=0.0)] * 3)) as server:
        outcomes = come_back(lambda **run: respond(seeds, f"m@{server.url}", "out.jsonl", timeout=20.0, **run))
        assert len(server.batches) == 3
        assert outcomes[-1].result["funnel"]["failed"] == {"no answer": 9}, "the first row, and its equal"
        outcomes = come_back(lambda **run: respond(seeds, f"m@{server.url}", "out.jsonl", timeout=20.0, **run))
        assert not outcomes[-1].result["funnel"]["failed"]
        answers_of(server)


def test_a_batch_that_is_not_taken_is_an_outage_with_the_words_of_the_provider(seeds: Path) -> None:
    expected = one_by_one(seeds)
    with running(BatchServer(plans=[Plan(end="failed", words="Enqueued token limit reached")])) as server:
        assert evolved(seeds, server, batch=True).reason == "batch"
        outcome = evolved(seeds, server, batch=True)
        assert outcome.reason == "outage"
        assert "Enqueued token limit reached" in str(outcome.error)
        come_back(lambda **run: evolved(seeds, server, **run))
        answers_of(server)
    assert digest("batch/out.jsonl") == expected


def test_a_server_without_batches_says_so(seeds: Path) -> None:
    with running(Server()) as server:
        outcome = evolved(seeds, server, batch=True)
    assert outcome.reason == "outage"
    assert "HTTP 404" in str(outcome.error)
    assert "Without --batch, requests are sent one by one" in str(outcome.error)


def test_refused_requests_are_read_as_one_by_one(seeds: Path) -> None:
    """A parameter that not all requests show to be refused, and a prompt that is refused."""

    def refuse(request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        text = request["messages"][-1]["content"]
        if "number 3 " in text:
            return 400, {"error": {"message": "This prompt is not allowed here"}}
        if "temperature" in request and "number 0 " not in text:
            return 400, {"error": {"message": "Unsupported parameter: temperature", "param": "temperature"}}
        return None

    for kind, folder in ((Server, "whole"), (BatchServer, "batch")):
        with running(kind(refuse=refuse)) as server:
            model = f"m@{server.url}"
            if isinstance(server, BatchServer):
                come_back(lambda model=model, **run: respond(seeds, model, "batch/out.jsonl", temperature=0.5, **run))
                answers_of(server)
                assert len(server.batches) == 2, "what was refused for a parameter was submitted again, without it"
            else:
                respond(seeds, model, f"{folder}/out.jsonl", temperature=0.5)
    assert rows("batch/out.rejected.jsonl")[0]["reason"] == "refused (HTTP 400)"
    assert digest("batch/out.jsonl") == digest("whole/out.jsonl")


def test_stragglers_are_sent_at_once_after_the_time_to_wait(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch is cancelled half way, and the second one is never finished: it cannot be cancelled either."""
    monkeypatch.setattr("datagen.llm.batches.layer.FIRST_POLL", 0.02)
    expected = one_by_one(seeds)
    with running(BatchServer(plans=[Plan(looks=10**6, answered=0.5), Plan(looks=10**6)])) as server:
        assert evolved(seeds, server, batch=True).reason == "batch"
        outcome = evolved(seeds, server, batch=True, batch_wait=0.0)
        assert outcome.reason is None
        assert digest("batch/out.jsonl") == expected
        answers_of(server)
        assert [batch["status"] for batch in server.batches.values()] == ["cancelled"]
    with running(BatchServer(can_cancel=False, plans=[Plan(looks=10**6)])) as server:
        assert evolved(seeds, server, "never/out.jsonl", batch=True).reason == "batch"
        outcome = evolved(seeds, server, "never/out.jsonl", batch=True, batch_wait=0.0)
        assert "could not be cancelled: up to" in " ".join(outcome.notes)
    assert digest("never/out.jsonl") == expected


def test_a_run_that_waits_goes_through_all_levels(seeds: Path) -> None:
    expected = one_by_one(seeds)
    with running(BatchServer(plans=[Plan(looks=1)])) as server:
        words = f"evolve {seeds} --rounds 1 --model m@{server.url} -o batch/out.jsonl --batch --batch-wait 60"
        Path("batch").mkdir()
        ran = datagen(*words.split())
        assert ran.returncode == 0, ran.stderr
        answers_of(server)
    assert Path("batch/out.jsonl").read_bytes() == Path("whole/out.jsonl").read_bytes()
    assert digest("batch/out.jsonl") == expected


def test_the_command_says_that_it_is_to_be_given_again_and_leaves_the_rows_in_place_alone(seeds: Path) -> None:
    with running(BatchServer()) as server:
        words = f"evolve {seeds} --rounds 1 --model m@{server.url} -o out.jsonl --batch --price 1/2/0.1".split()
        Path("out.jsonl").write_text("")
        ran = datagen(*words)
        assert ran.returncode == 2, "a file of somebody else"
        Path("out.jsonl").unlink()
        ran = datagen(*words)
        assert ran.returncode == 0, ran.stderr
        assert "batch-1: 10 requests, submitted now" in ran.stderr, "one of the 11 was sent at once"
        assert "Come back later: the same command reads the answers and goes on." in ran.stderr
        assert "a batch is cheaper, at 50 % of the price" in ran.stderr
        assert not Path("out.jsonl").exists()
        assert not Path("out.meta.json").exists()
