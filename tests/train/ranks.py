"""Several processes that train one model, started from a process that has the libraries already."""

import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from datagen.signals import LIFELINE
from datagen_train.launch import shared_variables


def train_rank(variables: dict[str, str], arguments: Sequence[str]) -> None:
    """Be one of the processes of a run."""
    from datagen.__main__ import main

    os.environ.update(variables)
    with open(f"stderr.{variables['RANK']}", "w") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    sys.argv = ["tests", *arguments]
    main()


def start_ranks(processes: int, *arguments: str) -> list[BaseProcess]:
    """Start a command in several processes."""
    variables = shared_variables(processes)
    shared = {name: value for name, value in variables.items() if name not in os.environ}
    shared.pop(LIFELINE)  # there is no pipe to the first process
    context = get_context("forkserver")
    ranks: list[BaseProcess] = [
        context.Process(target=train_rank, args=({**shared, "RANK": rank, "LOCAL_RANK": rank}, list(arguments)))
        for rank in map(str, range(processes))
    ]
    for rank in ranks:
        rank.start()
    return ranks


def train_on(processes: int, *arguments: str) -> str:
    """Train in several processes to the end; return what the first one writes."""
    ranks = start_ranks(processes, *arguments)
    for rank in ranks:
        rank.join(120)
    output = [Path(f"stderr.{number}").read_text() for number in range(processes)]
    assert all(rank.exitcode in (0, 3) for rank in ranks), "".join(output)  # 3: so few steps need not make it better
    return output[0]
