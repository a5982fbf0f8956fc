"""Votes that people cast on samples, and the log that keeps them (`datagen review`).

The log is JSON lines, one vote a line, on disk before the page hears of it; judge/human.py says what a line holds and
reads it. The last vote of a reviewer on a row counts, so a changed mind is one more line. A line that a kill cut off is
taken away when the log is opened again.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from itertools import combinations
from pathlib import Path
from random import Random
from typing import NamedTuple

from datagen.errors import InputError
from datagen.judge.human import ALL_BAD, ORDER, SKIP, TIE, Vote, ranks_of, read_votes
from datagen.records.files import dump_line
from datagen.records.ranked import dense_ranks
from datagen.records.record import Record, Row, digest

VERDICTS = (ORDER, TIE, ALL_BAD, SKIP)
LINE_START = b'{"prompt_id": '
"""What every line of a log begins with: nothing else at the end of a file is ever cut off."""
Ranks = tuple[int, ...]


class Cast(NamedTuple):
    """What a reviewer says of a row; `ranks` are in the order of the row's responses, None unless it is an order."""

    verdict: str
    ranks: Ranks | None


def placement(record: Record, by: str) -> list[int]:
    """Return which response stands at each place of the page; the same whenever the reviewer comes back."""
    places = list(range(len(record.responses)))
    Random(digest(["placement", record.id, by])).shuffle(places)
    return places


def as_cast(record: Record, places: Sequence[int], verdict: object, shown_ranks: object) -> Cast:
    """Check a vote that gives ranks as the page showed the answers; ValueError says what is wrong with it."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict: expected one of {', '.join(VERDICTS)}")
    if verdict != ORDER:
        return Cast(str(verdict), None)
    if not isinstance(shown_ranks, list) or len(shown_ranks) != len(places):
        raise ValueError(f"ranks: expected {len(places)} numbers")
    if not all(type(rank) is int and 1 <= rank <= len(places) for rank in shown_ranks):
        raise ValueError(f"ranks: expected numbers from 1 to {len(places)}")
    dense = dense_ranks([-rank for rank in shown_ranks])
    if max(dense) == 1:
        return Cast(TIE, None)
    by_response = dict(zip(places, dense, strict=True))
    return Cast(ORDER, tuple(by_response[at] for at in range(len(places))))


def recalled(record: Record, vote: Vote) -> Cast:
    """Return what a line of the log says of a row."""
    return Cast(vote.verdict, tuple(ranks_of(record, vote)) if vote.verdict == ORDER else None)


def locked(path: Path) -> FileIO:
    """Open or make a log for appending, for nobody else meanwhile."""
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


class Log:
    """The votes of one reviewer, in a file that other reviewers' votes may stand in too."""

    def __init__(self, path: Path, by: str, records: Sequence[Record]) -> None:
        """Open or make the log. Raise InputError if it is another kind of file, votes on other answers than the records
        hold, or is written to by somebody else."""
        self.path, self.by = path, by
        self._file = locked(path)
        try:
            self.cut = self._mend()
            """How many bytes of a torn line were taken away."""
            self.cast = {record.id: recalled(record, vote) for record, vote in self._own_votes(records)}
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _own_votes(self, records: Sequence[Record]) -> Iterator[tuple[Record, Vote]]:
        read_votes.cache_clear()  # a log grows
        found = read_votes(self.path)
        for record in records:
            yield from ((record, vote) for vote in found.get(record.id, []) if vote.by == self.by)

    def _mend(self) -> int:
        """Make the file end in a line end; cut off the start of a vote that never got whole."""
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        tail = text[whole:]
        if not tail:
            return 0
        if not tail.startswith(LINE_START[: len(tail)]):
            raise InputError(f"{self.path}: ends in what is no vote, so it is left alone. Name another --votes FILE")
        if is_json(tail):  # whole but for its line end
            self._file.write(b"\n")
            return 0
        self._file.truncate(whole)
        os.fsync(self._file.fileno())
        return len(tail)

    def append(self, record: Record, cast: Cast) -> None:
        """Write a vote to disk, then count it; one that says what was said already is not written again."""
        if self.cast.get(record.id) == cast:
            return
        line = dump_line(
            {
                "prompt_id": record.id,
                "prompt": record.prompt,
                "responses": list(record.responses),
                "ranks": None if cast.ranks is None else list(cast.ranks),
                "verdict": cast.verdict,
                "by": self.by,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        start = os.fstat(self._file.fileno()).st_size
        try:
            write_whole(self._file.fileno(), line)
        except OSError:
            self._file.truncate(start)  # a full disk must not leave half a line before the next vote
            raise
        self.cast[record.id] = cast


def write_whole(file: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Summary:
    """What came of a review. Shares and kappa are None where there is nothing to tell them from."""

    rows: int
    votes: int
    """Rows voted on, the skipped ones left out."""
    verdicts: dict[str, int]
    pairs: int
    """Pairs of answers that both the judge and the reviewer compared."""
    agreement: float | None
    agreement_decided: float | None
    """Of the pairs where neither says tie."""
    kappa: float | None

    def as_dict(self) -> Row:
        return dict(vars(self))


def summarize(records: Sequence[Record], cast: dict[str, Cast]) -> Summary:
    """Count the verdicts and compare the reviewer with the judge, where the rows carry ranks."""
    known = [(record, cast[record.id]) for record in records if record.id in cast]
    verdicts = Counter(each.verdict for _, each in known)
    pairs = Counter(pair for record, each in known for pair in compared(record, each))
    decided = Counter({pair: count for pair, count in pairs.items() if 0 not in pair})
    counts = {name: verdicts[name] for name in VERDICTS}
    votes = len(known) - verdicts[SKIP]
    return Summary(len(records), votes, counts, pairs.total() // 2, agreed(pairs), agreed(decided), kappa(pairs))


def compared(record: Record, cast: Cast) -> Iterator[tuple[int, int]]:
    """Yield (judge, person) of every two answers: 1 the first is better, 0 a tie, -1 the second.

    Each pair comes from either side, for which answer stands first in a row means nothing.
    """
    if not record.ranks or cast.verdict not in (ORDER, TIE):
        return
    ranks = cast.ranks or (1,) * len(record.ranks)
    for i, j in combinations(range(len(ranks)), 2):
        judge, person = sign(record.ranks[j] - record.ranks[i]), sign(ranks[j] - ranks[i])
        yield judge, person
        yield -judge, -person


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def agreed(pairs: "Counter[tuple[int, int]]") -> float | None:
    """Return the share of pairs on which both say the same."""
    total = pairs.total()
    return sum(count for (one, other), count in pairs.items() if one == other) / total if total else None


def kappa(pairs: "Counter[tuple[int, int]]") -> float | None:
    """Return Cohen's kappa (1960): agreement beyond what the two would reach by chance."""
    observed, total = agreed(pairs), pairs.total()
    if observed is None:
        return None
    judge, person = Counter[int](), Counter[int]()
    for (one, other), count in pairs.items():
        judge[one] += count
        person[other] += count
    by_chance = sum(judge[each] * person[each] for each in judge) / total**2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
