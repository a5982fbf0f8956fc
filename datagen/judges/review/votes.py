"""Votes that people cast on samples, and the log that keeps them (`datagen review`, `datagen judge --by human`).

The log is JSON lines. A line is the vote of one person on one row; it is on disk before the page gets its answer:

    {"prompt_id": "...", "responses": [...], "ranks": [1, 2, 2], "verdict": "order", "by": "kim", "at": "..."}

    order     `ranks` in the order of `responses`, 1 the best, equal ones a tie
    tie       no answer is better than another
    all_bad   no answer is good
    skip      no vote

The last vote of a person on a row counts, so a changed vote is one more line. An incomplete last line, left by a killed
process, is removed when the log is opened again.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from io import FileIO
from pathlib import Path
from random import Random
from typing import NamedTuple

from datagen.errors import InputError
from datagen.records.files import dump_line, open_file
from datagen.records.lines import Line, json_lines
from datagen.records.ranked import dense_ranks
from datagen.records.record import Record, digest

ORDER, TIE, ALL_BAD, SKIP = VERDICTS = ("order", "tie", "all_bad", "skip")
LINE_START = b'{"prompt_id": '
"""How every line of a log begins: an incomplete last line that begins otherwise is never removed."""
Ranks = tuple[int, ...]


class Vote(NamedTuple):
    """A reviewer's vote on a row."""

    verdict: str
    ranks: Ranks | None
    """In the order of the row's responses; None unless the verdict is an order."""


class LoggedVote(NamedTuple):
    """A line of a log."""

    place: str
    """File and line, for messages."""
    responses: tuple[str, ...]
    verdict: str
    ranks: Ranks
    by: str


@cache
def read_votes(path: Path) -> dict[str, list[LoggedVote]]:
    """Read a log: the id of a row to the votes on it, one a person."""
    votes: dict[str, dict[str, LoggedVote]] = {}
    with open_file(str(path)) as file:
        for line in json_lines(str(path), file):
            place = f"{path}:{line.number}"
            try:
                name, vote = parse_line(place, line)
            except ValueError as problem:
                raise InputError(f"{place}: {problem}. A vote is a line that 'datagen review' wrote") from None
            votes.setdefault(name, {})[vote.by] = vote
    return {name: list(by_person.values()) for name, by_person in votes.items()}


def parse_line(place: str, line: Line) -> tuple[str, LoggedVote]:
    """Return (row id, vote) of a line; ValueError says what is wrong with it."""
    if line.row is None:
        raise ValueError(line.problem)
    name, responses, verdict, by = (line.row.get(key) for key in ("prompt_id", "responses", "verdict", "by"))
    if not isinstance(name, str) or not isinstance(by, str):
        raise ValueError('"prompt_id" and "by" are not both text')
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise ValueError('"responses" is not a list of texts')
    if verdict not in VERDICTS:
        raise ValueError(f'"verdict" is none of {", ".join(VERDICTS)}')
    ranks = line.row.get("ranks") if verdict == ORDER else [1] * len(responses)
    if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks) or len(ranks) != len(responses):
        raise ValueError('"ranks" is not a whole number for each response')
    return name, LoggedVote(place, tuple(responses), verdict, tuple(ranks), by)


def ranks_of(record: Record, vote: LoggedVote) -> list[int]:
    """Return the ranks that a vote gives to the answers of a row, whatever order they stood in on the page."""
    if sorted(vote.responses) != sorted(record.responses):
        raise InputError(f"{vote.place}: votes on other answers than row {record.id} holds; name the file reviewed")
    rank_of = dict(zip(vote.responses, vote.ranks, strict=True))
    return [rank_of[response] for response in record.responses]


def placement(record: Record, by: str) -> list[int]:
    """Return which response stands at each place of the page; the same whenever the reviewer comes back."""
    places = list(range(len(record.responses)))
    Random(digest(["placement", record.id, by])).shuffle(places)
    return places


def parse_vote(places: Sequence[int], verdict: object, page_ranks: object) -> Vote:
    """Check a vote of the page.

    Args:
        places: The response at each place of the page, as `placement` returns it.
        verdict: One of VERDICTS.
        page_ranks: For an order, a rank for each place of the page, 1 the best.

    Raises:
        ValueError: The vote is not valid; the message says why.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict: expected one of {', '.join(VERDICTS)}")
    if verdict != ORDER:
        return Vote(str(verdict), None)
    if not isinstance(page_ranks, list) or len(page_ranks) != len(places):
        raise ValueError(f"ranks: expected {len(places)} numbers")
    if not all(type(rank) is int and 1 <= rank <= len(places) for rank in page_ranks):
        raise ValueError(f"ranks: expected numbers from 1 to {len(places)}")
    dense = dense_ranks([-rank for rank in page_ranks])
    if max(dense) == 1:
        return Vote(TIE, None)
    by_response = dict(zip(places, dense, strict=True))
    return Vote(ORDER, tuple(by_response[at] for at in range(len(places))))


class Log:
    """The votes of one reviewer, in a file that may hold other reviewers' votes too.

    Args:
        path: The file, created if it does not exist. It is locked until `close`.
        by: The reviewer.
        records: The rows under review.

    Raises:
        InputError: The file is of another kind, votes on other answers than the records hold, or is written to by
            another process.
    """

    def __init__(self, path: Path, by: str, records: Sequence[Record]) -> None:
        self.path, self.by = path, by
        self._file = open_locked(path)
        try:
            self.cut = self._mend()
            """How many bytes of an incomplete line were removed."""
            read_votes.cache_clear()  # a log grows
            logged = read_votes(path)
            self.votes: dict[str, Vote] = {}
            """The id of a row to the reviewer's vote on it."""
            for record in records:
                for vote in logged.get(record.id, []):
                    if vote.by == by:
                        ranks = tuple(ranks_of(record, vote)) if vote.verdict == ORDER else None
                        self.votes[record.id] = Vote(vote.verdict, ranks)
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _mend(self) -> int:
        """Remove an incomplete last line, or complete it if only its line end is missing; return the bytes removed."""
        text = self.path.read_bytes()
        end = text.rfind(b"\n") + 1
        tail = text[end:]
        if not tail:
            return 0
        if not tail.startswith(LINE_START[: len(tail)]):
            raise InputError(f"{self.path}: its last line is no vote, so it is left alone. Name another --votes FILE")
        try:
            json.loads(tail)
        except ValueError:
            self._file.truncate(end)
            os.fsync(self._file.fileno())
            return len(tail)
        self._file.write(b"\n")  # only its line end is missing
        return 0

    def append(self, record: Record, vote: Vote) -> None:
        """Write a vote to disk, then count it; one that repeats the last is not written again."""
        if self.votes.get(record.id) == vote:
            return
        line = dump_line(
            {
                "prompt_id": record.id,
                "prompt": record.prompt,
                "responses": list(record.responses),
                "ranks": None if vote.ranks is None else list(vote.ranks),
                "verdict": vote.verdict,
                "by": self.by,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        file = self._file.fileno()
        start, rest = os.fstat(file).st_size, memoryview(line)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            self._file.truncate(start)  # a full disk must not leave half a line before the next vote
            raise
        self.votes[record.id] = vote


def open_locked(path: Path) -> FileIO:
    """Open or make a log for appending, and lock it."""
    try:
        file = FileIO(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644), "r+")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f"{path}: another 'datagen review' writes to it; end that, or name a --votes FILE") from None
    return file
