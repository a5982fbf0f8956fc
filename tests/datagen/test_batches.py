"""Provider batches fill the journal: the same bytes as one by one, nothing lost, nothing paid for twice."""

import json
import os
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.table import load_methods
from datagen.engine.job import Outcome
from datagen.engine.output import read_meta
from datagen.errors import InputError
from datagen.generators.self_instruct import SelfInstruct
from datagen.llm.batches.comparison import break_even
from datagen.llm.batches.layer import Batches
from datagen.llm.batches.lines import Oddities, read_results
from datagen.llm.batches.store import BatchStore
from datagen.llm.gather import find_journal, gather
from datagen.llm.journal import Journal
from datagen.llm.prices import flat_price
from tests.batch_server import STEPS, BatchServer, Plan
from tests.datagen.test_cli import datagen
from tests.datagen.test_embeddings import filtered
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


def is_finished(output: str) -> bool:
    """Whether a run has put all of its files in place: a kill can come between two of them."""
    meta = read_meta(Path(output).with_suffix(".meta.json"))
    return meta is not None and meta["result"]["status"] == "finished"


def kill_and_compare(seeds: Path, steps: list[str], number: int, *, can_delete: bool = True) -> int:
    """Kill a command at one step after the other until it has ended; return the number of kills."""
    output, runs = f"killed-{number}/out.jsonl", 0
    with running(BatchServer(can_delete=can_delete)) as server:
        while not is_finished(output):
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
                if not isinstance(server, BatchServer) or step == "pairs":
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


def test_a_run_that_waits_goes_through_all_levels() -> None:
    seeds = write_seeds(8)
    expected = one_by_one(seeds)
    with running(BatchServer(plans=[Plan(looks=1)])) as server:
        words = f"evolve {seeds} --rounds 1 --model m@{server.url} -o batch/out.jsonl --batch --batch-wait 60"
        Path("batch").mkdir()
        ran = datagen(*words.split())
        assert ran.returncode == 0, ran.stderr
        answers_of(server)
    assert digest("batch/out.jsonl") == expected
    words += " --overwrite --price 1/2/0.1"  # for the answers of another journal
    Path("batch/.datagen/journal.sqlite3").unlink()
    with running(BatchServer()) as server:
        ran = datagen(*re.sub("http://[^ ]*", server.url, words).split())
        assert ran.returncode == 0, ran.stderr
    meta = json.loads(Path("batch/out.meta.json").read_text())
    assert meta["run"]["paid"] == pytest.approx(meta["result"]["usage"]["cost"]), "of all levels"
    assert meta["run"]["requests"] == 1


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


def test_a_cap_on_calls_holds_over_all_runs(seeds: Path) -> None:
    with running(BatchServer()) as server:
        outcomes = come_back(lambda **run: respond(seeds, f"m@{server.url}", "out.jsonl", max_calls=5, **run))
        assert outcomes[-1].reason == "cap"
        assert len(answers_of(server)) <= 5
        assert outcomes[-1].result["funnel"]["asked"] >= 1
        raised = come_back(lambda **run: respond(seeds, f"m@{server.url}", "out.jsonl", max_calls=60, **run))
        answers_of(server)
        assert raised[-1].reason is None
        assert raised[-1].result["funnel"]["asked"] == 11
    with running(BatchServer()) as server:
        vote: dict[str, Any] = {"strategy": "vote", "k": 5, "max_calls": 2}
        outcomes = come_back(lambda **run: respond(seeds, f"m@{server.url}", "vote.jsonl", **vote, **run))
        assert outcomes[-1].reason == "cap"
        assert len(answers_of(server)) == 2, "also within the first row"


def test_a_cap_in_dollars_counts_batches_at_their_price_and_holds_over_all_runs(seeds: Path) -> None:
    """The most of a call is about $0.001: a prompt of some hundred bytes, and an answer of 300 tokens."""
    settings: dict[str, Any] = {"price": PRICE, "max_tokens": 300, "timeout": 20.0}
    with running(BatchServer()) as server:
        model = f"m@{server.url}"
        outcomes = come_back(lambda **run: respond(seeds, model, "out.jsonl", max_cost=0.002, **settings, **run))
        assert outcomes[-1].reason == "cap"
        some = len(answers_of(server))
        assert 1 < some < 8, "at half the price, more than one call fits beside the first"
        come_back(lambda **run: respond(seeds, model, "out.jsonl", max_cost=1.0, **settings, **run))
        answers_of(server)


def test_a_batch_costs_half_in_the_account_of_run_and_rows(seeds: Path) -> None:
    settings: dict[str, Any] = {"price": PRICE, "timeout": 20.0}
    with running(Server()) as server:
        whole = respond(seeds, f"m@{server.url}", "whole/out.jsonl", **settings)
    with running(BatchServer()) as server:
        outcomes = come_back(lambda **run: respond(seeds, f"m@{server.url}", "batch/out.jsonl", **settings, **run))
    assert Path("batch/out.jsonl").read_bytes() == Path("whole/out.jsonl").read_bytes()
    cost, full = outcomes[-1].result["usage"]["cost"], whole.result["usage"]["cost"]
    first = outcomes[0].run["paid"]
    assert outcomes[0].run["requests"] == 1 and first < full / 4, "the call that is sent at once costs the whole price"
    assert sum(outcome.run["paid"] for outcome in outcomes) == pytest.approx(first + (whole.run["paid"] - first) / 2)
    assert cost == pytest.approx(2 * first + (full - 2 * first) / 2), "two rows use its answer"


def test_models_toml_may_name_the_price_of_a_batch(seeds: Path) -> None:
    with running(BatchServer()) as server:
        price = "price = {input = 1, output = 2, batch = 0.25}"
        Path("models.toml").write_text(f'[models.t]\nname = "m"\nurl = "{server.url}"\n{price}\n')
        outcomes = come_back(lambda **run: respond(seeds, "t", "out.jsonl", timeout=20.0, **run))
    usage = outcomes[-1].result["usage"]
    full = (usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 10**6
    assert full / 4 < usage["cost"] < full / 2


def test_shards_with_batches_are_gathered(seeds: Path) -> None:
    """One shard ends; the other one is gathered while a batch of it is open, and the whole command reads that."""
    expected = one_by_one(seeds)
    with running(BatchServer()) as server:
        come_back(lambda **run: evolved(seeds, server, "s1/out.jsonl", shard="1/2", **run))
        assert evolved(seeds, server, "s2/out.jsonl", shard="2/2", batch=True).reason == "batch"
        Path("all").mkdir()
        for folder in ("s1", "s2"):
            gather(find_journal(folder), Path("all"))
        come_back(lambda **run: evolved(seeds, server, "all/out.jsonl", **run))
        twice = server.paid_twice()
        assert len(twice) <= 3, "only rows that are there twice, in two shards"
        assert max(server.lines.values()) == 1 or twice
    assert digest("all/out.jsonl") == expected


def test_a_damaged_journal_keeps_its_open_batches(seeds: Path) -> None:
    expected = one_by_one(seeds)
    with running(BatchServer()) as server:
        assert evolved(seeds, server, batch=True).reason == "batch"
        path = Path("batch/.datagen/journal.sqlite3")
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'replies'").fetchone()
        content = bytearray(path.read_bytes())
        content[4096 * (page - 1) : 4096 * (page - 1) + 8] = b"damaged!"
        path.write_bytes(content)
        outcomes = come_back(lambda **run: evolved(seeds, server, **run))
        assert any("was damaged" in note for note in outcomes[0].notes)
        assert max(server.lines.values()) == 1
    assert digest("batch/out.jsonl") == expected


def test_without_batch_open_ones_are_named_and_their_answers_are_used_where_they_are_here(seeds: Path) -> None:
    expected = one_by_one(seeds)
    with running(BatchServer(plans=[Plan(looks=99)])) as server:
        assert evolved(seeds, server, batch=True).reason == "batch"
        outcome = evolved(seeds, server)
        assert any("requests to m are in open batches: --batch reads their answers" in note for note in outcome.notes)
    assert digest("batch/out.jsonl") == expected
    with running(BatchServer()) as server:
        assert evolved(seeds, server, "killed/out.jsonl", batch=True).reason == "batch"
        run = PROCESSES.Process(target=fetch_and_die, args=(seeds, server.url))
        run.start()
        run.join()
        evolved(seeds, server, "killed/out.jsonl")
        answers_of(server)
    assert digest("killed/out.jsonl") == expected


def fetch_and_die(seeds: Path, url: str) -> None:
    """Run until the answers of a batch are here, and not one of them was read."""
    Batches.send = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
    evolve(seeds, f"m@{url}", "killed/out.jsonl", rounds=1, batch=True, timeout=20.0)


def test_what_has_no_batches_says_why(seeds: Path) -> None:
    settings: dict[str, Any] = {"batch": True}
    for model, says in (
        ("sim", "no model of this command is at an address"),
        ("m@http://127.0.0.1:1/v1,http://127.0.0.1:2/v1", "m has several addresses"),
    ):
        with pytest.raises(InputError, match=says):
            evolve(seeds, model, **settings)
    with pytest.raises(InputError, match="depends on the rows before"):
        perform(
            SelfInstruct, seeds, "m@http://127.0.0.1:1/v1", "out.jsonl", SelfInstruct.options_type(), n=5, **settings
        )
    with pytest.raises(InputError, match="rows cannot go to standard output"):
        evolve(seeds, "m@http://127.0.0.1:1/v1", "-", **settings)
    with pytest.raises(InputError, match="without --batch there is nothing to wait for"):
        evolve(seeds, "sim", batch_wait=5.0)


@pytest.mark.parametrize("n", [3, 30])
def test_a_number_of_rows_gives_the_bytes_of_calls_one_by_one(n: int, seeds: Path) -> None:
    expected = one_by_one(seeds, n=n)
    with running(BatchServer()) as server:
        come_back(lambda **run: evolved(seeds, server, n=n, **run))
        answers_of(server)
    assert digest("batch/out.jsonl") == expected


def test_requests_that_begin_alike_lie_together(seeds: Path) -> None:
    lines = [f'{{"prompt": "{"Alpha" if number % 2 else "Beta"} question {number}"}}\n' for number in range(10)]
    Path("mixed.jsonl").write_text("".join(lines))
    with running(BatchServer()) as server:
        assert respond(Path("mixed.jsonl"), f"m@{server.url}", "out.jsonl", k=2, batch=True).reason == "batch"
        (batch,) = server.batches.values()
    prompts = [row["body"]["messages"][-1]["content"] for row in batch["rows"]]
    assert prompts == sorted(prompts)
    assert prompts[0].startswith("Alpha") and prompts[-1].startswith("Beta")


def test_the_dry_run_says_whether_a_batch_is_cheaper(seeds: Path) -> None:
    long = "Consider this. " * 500
    Path("long.jsonl").write_text("".join(json.dumps({"prompt": f"{long} {number}"}) + "\n" for number in range(8)))
    model = ["--model", "m@http://127.0.0.1:9/v1", "--dry-run"]
    ran = datagen("respond", str(seeds), *model, "--price", "1/2/0.1")
    assert "for m: a batch is cheaper, at 50 % of the price (0 % of the tokens" in ran.stderr
    ran = datagen("respond", "long.jsonl", *model, "--price", "1/2/0.1")
    assert "for m: without --batch the prompt cache makes it cheaper, unless answers are longer than" in ran.stderr
    ran = datagen("respond", "long.jsonl", *model, "--price", "1/2")
    assert "a batch is cheaper, at 50 % of the price (no price for cached tokens is known)" in ran.stderr
    assert "Batch or one by one" not in datagen("respond", "long.jsonl", *model).stderr
    assert "unknown, there is no price" in datagen("respond", "long.jsonl", *model, "--batch").stderr


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 1000), st.decimals("0.01", 100, places=2))
def test_both_ways_cost_the_same_at_the_length_that_is_named(
    prompt: int, share: float, calls: int, output: Decimal
) -> None:
    cached, price = int(prompt * share), flat_price(Decimal(1), output, Decimal("0.1"), source="test")
    answer = break_even(prompt, cached, calls, price)
    online = (prompt - cached) + cached * Decimal("0.1") + calls * answer * output
    batch = price.batch * (prompt + calls * answer * output)
    assert batch <= online if answer == 0 else abs(batch - online) <= online * Decimal("1e-6")


def test_more_requests_than_a_file_holds_make_several_batches(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, also while more are collected; and by the size of the file."""
    expected = one_by_one(seeds)
    for module in ("lines", "layer"):
        monkeypatch.setattr(f"datagen.llm.batches.{module}.MOST_REQUESTS", 3)
    with running(BatchServer()) as server:
        come_back(lambda **run: evolved(seeds, server, **run))
        assert max(len(batch["rows"]) for batch in server.batches.values()) == 3
        answers_of(server)
    assert digest("batch/out.jsonl") == expected
    monkeypatch.setattr("datagen.llm.batches.lines.MOST_REQUESTS", 1000)
    monkeypatch.setattr("datagen.llm.batches.layer.MOST_REQUESTS", 1000)
    monkeypatch.setattr("datagen.llm.batches.lines.MOST_BYTES", 2_000)
    with running(BatchServer()) as server:
        assert evolved(seeds, server, "small/out.jsonl", batch=True).reason == "batch"
        assert len(server.batches) > 2
        assert all(len(content) <= 2_000 for content in server.files.values())


def test_a_call_is_in_one_open_batch_and_is_free_again_when_that_is_gone() -> None:
    journal = Journal(Path(), {})
    store, other = BatchStore(journal, "m", "http://a"), BatchStore(journal, "m", "http://a")
    first, second, third = ((bytes([number]) * 32, 1) for number in range(3))
    batch, later = store.begin({first: None, second: {"top_p": 1}}), other.begin({second: None, third: None})
    assert (store.names(batch.token), store.names(later.token)) == ({first, second}, {third})
    assert store.place(second) == (batch.token, 1, {"top_p": 1})
    store.forget(batch.token)
    assert store.place(second) == ("", 0, {"top_p": 1})
    assert [one.token for one in store.open()] == [later.token]
    assert not store.set_file(batch.token, "file"), "another run has given it up: no batch may be created"
    store.conclude(later.token, [(third, 200, "{}")])
    store.conclude(later.token, [(third, 200, "[]")])
    assert (store.answer(third), store.place(third)) == ((200, b"{}"), ("", 1, None))
    assert BatchStore(journal, "m", "http://b").open() == []
    journal.close()


@given(st.lists(st.binary() | st.from_regex(rb'\\{"custom_id": ?"aa:1"[^\\n]*')), st.binary())
def test_no_file_of_results_is_an_error(lines: list[bytes], rest: bytes) -> None:
    good = b'{"custom_id": "aa:1", "response": {"status_code": 200, "body": {"n": 1}}}'
    name, oddities = (bytes([0xAA]), 1), Oddities()
    results = read_results([BytesIO(good + b"\n" + b"\n".join(lines)), BytesIO(rest)], {name}, oddities)
    assert results == {name: ("aa:1", 200, '{"n": 1}', "")}


def test_vectors_come_with_batches_too() -> None:
    Path("whole").mkdir()
    Path("batch").mkdir()
    with running(Server()) as server:
        filtered(server, "whole/out.jsonl")
    with running(BatchServer()) as server:
        outcomes = come_back(lambda **run: filtered(server, "batch/out.jsonl", **run))
        answers_of(server)
        assert {row["url"] for batch in server.batches.values() for row in batch["rows"]} == {"/v1/embeddings"}
    assert outcomes[-1].run["requests"] == 0
    assert digest("batch/out.jsonl") == digest("whole/out.jsonl")
