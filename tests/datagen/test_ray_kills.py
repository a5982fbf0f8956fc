"""Fifty kills (-9) of shards, of Ray's workers and of drivers: no row lost, little paid again, and no cap exceeded.

Ray runs once, in this process; the drivers join it. Workers are found by the name that Ray gives their processes.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import psutil
import pytest

from datagen.engine.ray_cluster import SETTINGS, share
from datagen.engine.ray_worker import UNSETTLED_PER_SLOT
from datagen.llm.gather import find_journal, gather
from tests.datagen.test_kills import wait_until_idle
from tests.jobs import digest, evolve, write_seeds
from tests.server import Server, running

pytestmark = pytest.mark.slow
IN_FLIGHT, SHARD_KILLS, WORKER_KILLS, DRIVER_KILLS = 8, 15, 25, 10
LATENCY = 0.15
"""Seconds of an answer: a run is long enough for several kills."""
AT_RISK = UNSETTLED_PER_SLOT * share(IN_FLIGHT, 2)[1]
"""The most that a lost worker, one of two, has paid for without a record."""
ALL_AT_RISK = UNSETTLED_PER_SLOT * IN_FLIGHT
"""The same of all workers of a lost driver."""
ENV = {"OMP_NUM_THREADS": "1", **SETTINGS}


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray for all tests of this file."""
    os.environ.update(ENV)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        context = ray.init(num_cpus=8, logging_level=logging.CRITICAL, **settings)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def seeds() -> Path:
    return write_seeds(60)


def command(seeds: Path, server: Server, output: str, *options: str) -> list[str]:
    Path(output).parent.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "datagen", "evolve", str(seeds), "--rounds", "2", "--timeout", "5"]
    return [*words, "--model", f"m@{server.url}", "-o", output, "--concurrency", str(IN_FLIGHT), *options]


def start(words: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, env={**os.environ, **ENV}, stderr=subprocess.PIPE, text=True)


def workers() -> list[psutil.Process]:
    """Return the processes of our workers."""
    children = psutil.Process().children(recursive=True)
    alive = []
    for child in children:
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::Worker"):
                alive.append(child)
        except psutil.Error:
            continue
    return alive


def paid(server: Server, begin: int) -> Counter[tuple[str, int]]:
    """Return how often each answer was delivered from some place of the log on."""
    return Counter((entry.key, entry.attempt) for entry in server.log[begin:] if entry.delivered)


def wait_for_requests(run: "subprocess.Popen[str]", server: Server, number: int) -> bool:
    """Wait until the server has so many requests; return whether the run still lasts."""
    while run.poll() is None and len(server.log) < number:
        time.sleep(0.005)
    return run.poll() is None


@pytest.mark.parametrize("limits", [{}, {"n": 20}, {"max_calls": 150}])
def test_one_machine_and_two_workers_write_the_same_bytes(
    limits: dict[str, Any], seeds: Path, ray_address: str
) -> None:
    for model in ("sim:refuse=0.1,leak=0.05,malformed=0.2",):
        evolve(seeds, model, "whole/out.jsonl", rounds=2, **limits)
        evolve(seeds, model, "ray/out.jsonl", rounds=2, ray="local:2", **limits)
        assert digest("ray/out.jsonl") == digest("whole/out.jsonl")


def kill_workers(server: Server, chance: Random, kills: int, ended: Event) -> int:
    """Kill workers, each after some requests, until so many are killed or the run has ended; return how many were."""
    done = 0
    while done < kills:
        due = len(server.log) + chance.randint(15, 30)
        while len(server.log) < due:
            if ended.wait(0.005):
                return done
        if alive := workers():
            chance.choice(alive).kill()
            done += 1
    return done


def test_killed_workers(seeds: Path, ray_address: str) -> None:
    chance, kills, runs = Random(1), 0, 0
    with running(Server(latency=LATENCY)) as server, ThreadPoolExecutor() as pool:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, timeout=5.0)
        whole = len(server.log)
        while kills < WORKER_KILLS:
            begin, output, ended = len(server.log), f"ray-{runs}/out.jsonl", Event()
            runs += 1
            killer = pool.submit(kill_workers, server, chance, min(9, WORKER_KILLS - kills), ended)
            try:
                evolve(
                    seeds, f"m@{server.url}", output, rounds=2, timeout=5.0, ray="local:2", concurrency=str(IN_FLIGHT)
                )
            finally:
                ended.set()
            answers, kills = paid(server, begin), kills + killer.result()
            again = answers.total() - whole
            print(f"{killer.result()} workers killed: {again} of {whole} paid for again")
            assert len(answers) == whole
            assert again <= killer.result() * AT_RISK, "more than the bound in docs/scale.md"
            assert digest(output) == digest("whole/out.jsonl")


def test_killed_drivers(seeds: Path, ray_address: str) -> None:
    chance, kills = Random(2), 0
    with running(Server(latency=LATENCY)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, timeout=5.0)
        whole, folder = len(server.log), 0
        while kills < DRIVER_KILLS:
            begin, before, output, cap = len(server.log), kills, f"ray-{folder}/out.jsonl", ["--max-calls", "300"]
            folder += 1
            for _ in range(min(5, DRIVER_KILLS - kills)):
                run = start(command(seeds, server, output, "--ray", ray_address, *cap))
                if wait_for_requests(run, server, len(server.log) + chance.randint(10, 50)):
                    run.kill()
                    kills += 1
                run.communicate()
                wait_until_idle(server)
            run = start(command(seeds, server, output, "--ray", ray_address, *cap))
            _, stderr = run.communicate(timeout=300)
            assert run.returncode in (0, 4), stderr
            assert paid(server, begin).total() <= 300, "more than --max-calls"
            run = start(command(seeds, server, output, "--ray", ray_address))
            _, stderr = run.communicate(timeout=300)
            assert run.returncode == 0, stderr
            answers = paid(server, begin)
            assert len(answers) == whole
            assert answers.total() - whole <= (kills - before) * ALL_AT_RISK
            assert digest(output) == digest("whole/out.jsonl")
            print(f"{kills - before} drivers killed: {answers.total() - whole} of {whole} paid for again")


def test_killed_shards(seeds: Path) -> None:
    chance, kills = Random(3), 0
    with running(Server(latency=0.03)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2)
        whole, begin = len(server.log), len(server.log)
        for number in range(1, 6):
            words = command(seeds, server, f"s{number}/out.jsonl", "--shard", f"{number}/5")
            for _ in range(SHARD_KILLS // 5):
                run = start(words)
                if wait_for_requests(run, server, len(server.log) + chance.randint(4, 10)):
                    run.kill()
                    kills += 1
                run.communicate()
                wait_until_idle(server)
            run = start(words)
            _, stderr = run.communicate(timeout=300)
            assert run.returncode == 0, stderr
            Path("all").mkdir(exist_ok=True)
            gather(find_journal(f"s{number}"), Path("all"))
        answers = paid(server, begin)
        assert len(answers) == whole
        assert answers.total() - whole < kills * 2 * IN_FLIGHT
        assert evolve(seeds, f"m@{server.url}", "all/out.jsonl", rounds=2).run["requests"] == 0
    assert kills == SHARD_KILLS
    assert digest("all/out.jsonl") == digest("whole/out.jsonl")
    print(f"{kills} shards killed: {answers.total() - whole} of {whole} paid for again")


def test_ctrl_c_ships_what_is_paid_for(seeds: Path) -> None:
    """The whole group of processes gets the signal, as from a terminal."""
    with running(Server(latency=LATENCY)) as server:
        evolve(seeds, f"m@{server.url}", "whole/out.jsonl", rounds=2, timeout=5.0)
        begin, words = len(server.log), command(seeds, server, "ray/out.jsonl", "--ray", "local:2")
        run = subprocess.Popen(
            words, env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        while run.poll() is None and len(server.log) < begin + 60:
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGINT)
        stdout, stderr = run.communicate(timeout=300)
        assert run.returncode == 130, stderr
        assert b"What was paid for is recorded" in stderr and b"raylet" not in stdout + stderr
        evolve(seeds, f"m@{server.url}", "ray/out.jsonl", rounds=2, timeout=5.0)
        assert max(paid(server, begin).values()) == 1, "an answer was paid for twice"
    assert digest("ray/out.jsonl") == digest("whole/out.jsonl")
