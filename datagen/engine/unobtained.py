"""What a method asks for beside its rows, such as the verdicts of a judge, and how much of it was not obtained.

A method declares each name with a sentence (`Method.asks`), and its candidates carry the counts (`ask`). The fold adds
them up; they stand in the funnel, and a command that did not obtain most of something has not done what it was asked.
"""

from collections.abc import Mapping

from datagen.engine.method import Method
from datagen.records.record import Candidate, Row

WITHOUT = "rows without reasoning"
COMMON_ASKS: Mapping[str, str] = {
    WITHOUT: "The model sends no reasoning: switch it on at the server, or take every answer with --reasoning keep.",
}
"""What every method with --reasoning can ask for."""


def ask(candidate: Candidate, name: str, total: int, missing: int) -> Candidate:
    """Note on a candidate what was asked for on its way; return it.

    Args:
        candidate: Of any status.
        name: A key of `Method.asks`, in the words of the funnel, such as "unread replies".
        total: How much was asked for; 0 notes nothing.
        missing: How much of it was not obtained.
    """
    if total:
        earlier = candidate.asks.get(name, (0, 0))
        candidate.asks = {**candidate.asks, name: (earlier[0] + total, earlier[1] + missing)}
    return candidate


def ask_sentence(method: Method | type[Method], name: str) -> str:
    """Return what it means that something was not obtained, and the way out."""
    return {**COMMON_ASKS, **method.asks}[name]


def mostly_missing(funnel: Row) -> list[str]:
    """Return the names of which more than half was not obtained; `funnel` as in x.meta.json, of any version."""
    return [name for name, counts in funnel.get("unobtained", {}).items() if 2 * counts["missing"] > counts["asked"]]
