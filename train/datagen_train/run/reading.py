"""Reading the rows of a run: what cannot be used is kept in a file, each line with its reason."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from datagen.engine.options import file_values
from datagen.errors import InputError, nothing_usable
from datagen.llm.local.weights import weights_digest
from datagen.records.columns import parse_map
from datagen.records.files import content_digest, dump_line, open_input
from datagen.records.makers import makers
from datagen.records.reader import Kind, Reader
from datagen.records.record import BadLine
from datagen_train.data.sources import Sources
from datagen_train.data.split import MOST_MEASURED, Account, count_repeated
from datagen_train.models.load import model_identity
from datagen_train.models.named_templates import template_identity
from datagen_train.options import TrainOptions
from datagen_train.run.progress import Terminal

BAD_LINES_SHOWN = 5


def open_reader(
    name: str, file: BinaryIO, kinds: Sequence[Kind[Any]], shape: str | None, mapping: Mapping[str, str]
) -> Reader[Any]:
    """Open a reader of the first kind of rows that the file holds.

    Raises:
        InputError: It holds none of them; the message is about the first.
    """
    problems = []
    for kind in kinds:
        try:
            return Reader(name, file, kind, shape, mapping)
        except InputError as problem:
            problems.append(problem)
    raise problems[0]


def read_sources(
    sources: Sources,
    kinds: Sequence[Kind[Any]],
    options: TrainOptions,
    dropped: BinaryIO,
    account: Account,
    terminal: Terminal,
) -> list[Any]:
    """Return the rows of all files, at most `--limit` of each, and count them by file; for the rest see `read_usable`.

    Raises:
        InputError: A file cannot be read, or no row of it can be used.
    """
    rows: list[Any] = []
    for name, file in zip(sources.names, sources.files, strict=True):
        reader = open_reader(name, file, kinds, options.format, parse_map(options.map))
        own = read_usable(reader, dropped, options.limit, account, terminal)
        sources.rows.append(len(own))
        rows += own
    return rows


def read_usable(
    reader: Reader[Any], dropped: BinaryIO, limit: int | None, account: Account, terminal: Terminal
) -> list[Any]:
    """Return the rows, at most `limit`; count them, and write lines that cannot be used to `dropped`.

    Raises:
        InputError: No row can be used.
    """
    rows: list[Any] = []
    earlier = account.unreadable
    for item in reader.read():
        if isinstance(item, BadLine):
            account.unreadable += 1
            account.problems[item.reason] += 1
            dropped.write(dump_line(asdict(item)))
            if account.unreadable <= BAD_LINES_SHOWN:
                terminal.say(f"{item} (skipped)")
        elif limit is None or len(rows) < limit:
            rows.append(item)
            terminal.count(len(rows))
    for note in reader.account.lines():
        terminal.say(note)
    account.read += len(rows) + account.unreadable - earlier
    account.makers.update(name for row in rows for name in set(makers(row.meta)))
    if not rows:
        raise nothing_usable(reader.name, account.losses())
    return rows


def file_digests(*groups: Any) -> dict[str, str]:
    """Return what the options of a run name by its content, which decides; where a file is does not.

    The data, the base model and the rewards have digests of their own (`Session.config`).
    """
    named = {name: value for options in groups for name, value in file_values(options).items()}
    return {
        name: IDENTITIES.get(name, content_digest)(value)
        for name, value in named.items()
        if name not in ("model", "reward")
    }


def critic_identity(spec: str) -> str:
    """Return the digest of a critic's folder; the spec where it is none."""
    return weights_digest(Path(spec)) if Path(spec, "config.json").exists() else spec


IDENTITIES = {"template": template_identity, "critic": critic_identity, "teacher": model_identity}
"""Options that do not simply name a file or a folder."""


def read_measured(options: TrainOptions, kinds: Sequence[Kind[Any]], terminal: Terminal) -> list[Any]:
    """Return the rows of `--eval-data`; none without it. Lines that cannot be used are printed.

    Raises:
        InputError: The file cannot be read, or no row can be used.
    """
    if options.eval_data is None:
        return []
    with open_input(options.eval_data) as file, open(os.devnull, "wb") as dropped:
        reader = open_reader(options.eval_data, file, kinds, options.format, parse_map(options.map))
        return read_usable(reader, dropped, None, Account(), terminal)


def check_measured(
    rows: Sequence[Any], measured: Sequence[Any], is_any: bool, options: TrainOptions, terminal: Terminal
) -> None:
    """Check the rows of `--eval-data` beside those that are trained on; warn of those that both sides have.

    Raises:
        InputError: None of them can be measured on (`is_any` is false).
    """
    if not measured:
        if options.held_out and not is_any:
            terminal.say(f"No row is held out, so nothing is measured: raise --held-out {options.held_out}")
        if len(rows) * options.held_out > MOST_MEASURED:
            terminal.say(
                f"--held-out {options.held_out:g}: about {MOST_MEASURED} of the rows are measured on, the same ones "
                "each time; datagen train eval --held-out measures on all that are held out"
            )
        return
    if not is_any:
        raise InputError("--eval-data: no row of it can be measured on; datagen train check shows why")
    if repeated := count_repeated(rows, measured):
        terminal.say(
            f"warning: {repeated} of the {len(measured)} rows of --eval-data have a prompt, or a seed, that is trained "
            "on: what is measured on them tells little"
        )
