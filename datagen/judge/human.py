"""Ranking by people: the votes that they cast on the page of `datagen review`.

A line of the log is one vote of one person on one row; the last one of a person on a row counts:

    {"prompt_id": "...", "responses": [...], "ranks": [1, 2, 2], "verdict": "order", "by": "kim", "at": "..."}

    order     `ranks` in the order of `responses`, 1 the best, equal ones a tie
    tie       no answer is better than another
    all_bad   none is any good: where most people say so the row is dropped, for no pair can be made of it
    skip      no vote

The votes on a row are comparisons of every two of its answers, and Bradley-Terry makes strengths of them
(bradley_terry.py), so people may disagree; where the majorities go in circles `meta.cycles` says so.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.judge.bradley_terry import Outcome, count_cycles, strengths
from datagen.judge.judging import ranked_row, what_is_known
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.files import open_input
from datagen.records.lines import Line, json_lines
from datagen.records.ranked import SAMPLES
from datagen.records.record import Candidate, Record, Row, reject

ORDER, TIE, ALL_BAD, SKIP = "order", "tie", "all_bad", "skip"


@dataclass(frozen=True)
class Options:
    """What ranking by people can be told."""

    votes: Path | None = option(None, "human: the log of 'datagen review': who ranked what.")


class Vote(NamedTuple):
    """What one person says of one row."""

    place: str
    """File and line, for messages."""
    responses: tuple[str, ...]
    verdict: str
    ranks: tuple[int, ...]
    by: str


@cache
def read_votes(path: Path) -> dict[str, list[Vote]]:
    """Read a log: the id of a row to the votes on it, one a person."""
    found: dict[str, dict[str, Vote]] = {}
    with open_input(str(path)) as file:
        for line in json_lines(str(path), file):
            place = f"{path}:{line.number}"
            try:
                name, vote = _vote(place, line)
            except ValueError as problem:
                raise InputError(f"{place}: {problem}. A vote is a line that 'datagen review' wrote") from None
            found.setdefault(name, {})[vote.by] = vote
    return {name: list(votes.values()) for name, votes in found.items()}


def _vote(place: str, line: Line) -> tuple[str, Vote]:
    if line.row is None:
        raise ValueError(line.problem)
    name, responses, verdict, by = (line.row.get(key) for key in ("prompt_id", "responses", "verdict", "by"))
    if not isinstance(name, str) or not isinstance(by, str):
        raise ValueError('"prompt_id" and "by" are not both text')
    if not isinstance(responses, list) or not all(isinstance(each, str) for each in responses):
        raise ValueError('"responses" is not a list of texts')
    if verdict not in (ORDER, TIE, ALL_BAD, SKIP):
        raise ValueError(f'"verdict" is none of {ORDER}, {TIE}, {ALL_BAD}, {SKIP}')
    ranks = line.row.get("ranks") if verdict == ORDER else [1] * len(responses)
    if not isinstance(ranks, list) or not all(type(rank) is int for rank in ranks) or len(ranks) != len(responses):
        raise ValueError('"ranks" is not a whole number for each response')
    return name, Vote(place, tuple(responses), verdict, tuple(ranks), by)


def ranks_of(record: Record, vote: Vote) -> list[int]:
    """Return the ranks that a vote gives to the answers of a row, whatever order they stood in on the page."""
    if sorted(vote.responses) != sorted(record.responses):
        raise InputError(f"{vote.place}: votes on other answers than row {record.id} holds; name the file reviewed")
    of = dict(zip(vote.responses, vote.ranks, strict=True))
    return [of[response] for response in record.responses]


def outcomes(ranks: Sequence[Sequence[int]]) -> list[Outcome]:
    """Compare every two answers: the share of the people who prefer the first, a tie half of one."""
    return [
        Outcome(i, j, fmean((1 + (each[i] < each[j]) - (each[i] > each[j])) / 2 for each in ranks), len(ranks))
        for i, j in combinations(range(len(ranks[0])), 2)
    ]


async def by_people(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the ranked row of a record, unless nobody has put its answers in order."""
    assert options.votes is not None
    log = read_votes(options.votes)
    votes = [vote for vote in log.get(record.id, log.get(str(record.source_id), [])) if vote.verdict != SKIP]
    ordered = [vote for vote in votes if vote.verdict != ALL_BAD]
    if 2 * len(ordered) < len(votes) or not votes:
        yield dropped(record, votes, "all_bad" if votes else "no_vote")
        return
    found = outcomes([ranks_of(record, vote) for vote in ordered])
    scores = [float(each) for each in strengths(len(record.responses), found)]
    cycles = count_cycles(len(record.responses), found)
    yield ranked_row(record, "human", scores, lambda order: meta_of(record, votes, cycles, order))


def meta_of(record: Record, votes: Sequence[Vote], cycles: int | None, order: Sequence[int]) -> Row:
    known = what_is_known(record)
    return {
        "method": "judge",
        "op": "human",
        "pass": record.pass_no,
        **record.lineage,
        "judges": sorted(vote.by for vote in votes),
        "votes": len(votes),
        "all_bad": sum(vote.verdict == ALL_BAD for vote in votes),
        "cycles": cycles,
        "responses": [known[at] for at in order],
    }


def dropped(record: Record, votes: Sequence[Vote], reason: str) -> Candidate:
    about = {"id": record.id, "prompt": record.prompt, "responses": list(record.responses)}
    meta = meta_of(record, votes, None, range(len(record.responses)))
    return reject(reason, stage="human", record=about, reply=None, meta=meta)


def prepare(options: Options) -> None:
    if options.votes is None:
        raise InputError("--by human needs --votes FILE: the log of 'datagen review'")
    read_votes.cache_clear()  # a log grows
    read_votes(options.votes)


class Human(Method):
    """human."""

    name = "judge"
    variant = "human"
    options_type = Options
    options: Options
    next_command = "datagen pairs {}"
    unique = ("prompt", "responses")
    kind = SAMPLES

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return by_people(record, llm, self.prompts, self.options)

    def check(self) -> None:
        prepare(self.options)
