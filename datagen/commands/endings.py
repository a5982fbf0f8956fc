"""How a command ended: its exit code, the message, and the command that continues it, if that can help."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from datagen.commands.terminal import counts
from datagen.engine.fold import most_failed
from datagen.engine.job import Outcome
from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.reasons import reason_sentence
from datagen.engine.shards import Shard
from datagen.engine.unobtained import ask_sentence, mostly_missing
from datagen.errors import CUT_ANSWER
from datagen.installation import program
from datagen.llm.prices import dollars
from datagen.records.record import Row
from datagen.signals import INTERRUPTED
from datagen.text import count_of

DONE, SHORT, AT_CAP, OUTAGE = 0, 3, 4, 5
FINAL_FAILURES = (CUT_ANSWER, "filtered answer", "refused", "timed out")
"""Beginnings of reasons for which the same request fails again."""
ENDPOINT_FAILURES = ("refused", "no answer")
"""Beginnings of reasons that the endpoint's own words explain best."""


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Args:
        exit_code: One of the constants above, or INTERRUPTED.
        message: What to tell the user; empty where the funnel says it all.
        again: The command line that continues the run; None if running it again would not help.
        rows_are_next: Whether what comes next is to use the rows.
        is_open: Whether the run goes on later, and has put no file in place.
    """

    exit_code: int
    message: str = ""
    again: str | None = None
    rows_are_next: bool = False
    is_open: bool = False


def ending_of(outcome: Outcome, run: RunOptions, method: Method, details: Mapping[str, str]) -> Ending:
    """Return how a run ended.

    Args:
        outcome: The result of `run_job`.
        run: The options of the run.
        method: What was run; it explains the reasons of its funnel.
        details: For each reason of a failure the words of the first one, as the server said them.
    """
    funnel, reason = outcome.result["funnel"], outcome.reason
    if reason == "cap" and run.max_cost is not None and outcome.run["cap"] == "max_cost":
        return at_max_cost(outcome.run, run.max_cost)
    if reason == "cap":
        raised = again("--max-calls", str(2 * (run.max_calls or 0)))
        return Ending(AT_CAP, f"Stopped at --max-calls {run.max_calls}. To continue, raise it.", raised)
    if reason == "batch":
        return ending_of_batches(outcome.run["batches"])
    if reason == "interrupted":
        return Ending(INTERRUPTED, "Interrupted. What was paid for is recorded.", again())
    if reason == "outage":
        if outcome.run["usage"]["calls"] or outcome.run.get("shipped"):
            return Ending(OUTAGE, f"error: {outcome.error}\nWhat was paid for is recorded.", again())
        unanswered = count_of(outcome.run["unanswered"], "request")
        paid = f"{unanswered} got no answer that can be read; the server may bill them."
        return Ending(
            OUTAGE, f"error: {outcome.error}\n{paid if outcome.run['unanswered'] else 'Nothing was paid for.'}"
        )
    return ending_of_input(funnel, reason, run, method, details)


def at_max_cost(row: Row, most: float) -> Ending:
    """Return the ending of a run at its cap in dollars.

    Args:
        row: `run` of x.meta.json.
        most: The cap.
    """
    needed = row.get("refused", 0.0)
    limit = f"{Decimal(str(most)):f}"
    message = f"Stopped at --max-cost {limit}. To continue, raise it."
    if needed:
        message = (
            f"Stopped at --max-cost {limit}: the next call may cost up to {dollars(needed)} (its prompt, and an answer "
            "as long as --max-tokens allows), and that is not left. To continue, raise it."
        )
    return Ending(AT_CAP, message, again("--max-cost", f"{Decimal(f'{2 * max(most, needed):.2g}'):f}"))


def ending_of_input(
    funnel: Row, reason: str | None, run: RunOptions, method: Method, details: Mapping[str, str] = {}
) -> Ending:
    """Return how a run ended that nothing outside has stopped; also one that was found finished, by its funnel.

    Where more than half of something that was asked for was not obtained, the command fell short, whatever was kept.
    """
    ending = ending_of_rows(funnel, reason, run, method, details)
    missing = "\n".join(missing_line(funnel, name, method) for name in mostly_missing(funnel))
    if not missing:
        return ending
    if reason == "in vain":
        return Ending(SHORT, f"Stopped, before more is paid for in vain. {missing}")
    return replace(ending, exit_code=SHORT, message=f"{ending.message}\n{missing}".strip(), rows_are_next=False)


def missing_line(funnel: Row, name: str, method: Method) -> str:
    """Say how much of something was not obtained, why that may be, and the way out."""
    ask = funnel["unobtained"][name]
    return f"Most was not obtained: {name} {ask['missing']} of {ask['asked']}. {ask_sentence(method, name)}"


def ending_of_rows(
    funnel: Row, reason: str | None, run: RunOptions, method: Method, details: Mapping[str, str]
) -> Ending:
    """Return how a run ended by the numbers of its kept, rejected and failed candidates."""
    kept, failed, rejected = funnel["kept"], funnel["failed"], funnel["rejected"]
    dropped = f"{counts(rejected | failed)}.{explain(rejected | failed, method, details)}"
    retry = again() if any(not name.startswith(FINAL_FAILURES) for name in failed) else None
    if reason == "failures" and method.lag is not None:
        return Ending(SHORT, f"A call failed, and what comes after it builds on its answer: {dropped}", retry)
    if reason == "failures" or sum(failed.values()) > most_failed(run.failure_limit, funnel["asked"]):
        return Ending(SHORT, f"More candidates failed than --max-failed {run.max_failed} allows: {dropped}", retry)
    if not kept:
        return Ending(SHORT, f"No row was kept of {funnel['asked']} candidates: {dropped}", retry)
    if reason == "stall":
        message = f"Short of -n {run.n}: {funnel['asked']} candidates gave {kept} rows; dropped: {dropped}"
        return Ending(SHORT, message, rows_are_next=True)
    if failed:
        message = f"Failed: {counts(failed)}.{explain(failed, method, details)}"
        if retry:
            message += " The same command tries the failed ones again, and nothing else."
        return Ending(SHORT if sum(failed.values()) > kept else DONE, message, retry, rows_are_next=not retry)
    return Ending(DONE, rows_are_next=True)


def ending_of_batches(states: Mapping[str, str]) -> Ending:
    """Return how a run ended whose next answers come with batches; `states` says how each of them is."""
    lines = "".join(f"\n  {name}: {state}" for name, state in states.items())
    message = (
        f"The next answers come with {'a batch' if len(states) == 1 else 'batches'}; no row is written yet.{lines}"
    )
    return Ending(
        DONE, f"{message}\nCome back later: the same command reads the answers and goes on.", again(), is_open=True
    )


def ending_of_shard(shard: Shard, journal: Path) -> Ending:
    """Return how a shard ended that has asked for all of its records; what is kept of them, the whole run decides."""
    words = iter(sys.argv[1:])
    whole = [word for word in words if not word.startswith("--shard=") and not (word == "--shard" and next(words))]
    message = (
        f"Shard {shard} is recorded in {journal}. When all are: `{program()} gather FOLDER...` in the folder of the "
        f"output, where they ran elsewhere; then, to write the rows: {program()} {shlex.join(whole)}"
    )
    return Ending(DONE, message)


def explain(reasons: Mapping[str, int], method: Method, details: Mapping[str, str]) -> str:
    """Explain the most frequent reason: what it means and the way out, or the words of the server."""
    most = max(reasons, key=lambda name: (reasons[name], name), default="")
    words = details.get(most) if most.startswith(ENDPOINT_FAILURES) else None
    sentence = words or reason_sentence(method, most)
    return f" {f'{most}: ' if len(reasons) > 1 else ''}{sentence}" if sentence else ""


def again(option: str = "", value: str = "") -> str:
    """Return the command line that was given, ready to paste, with another value for one of its options."""
    words: Sequence[str] = sys.argv[1:]
    if option:
        joined = [f"{option}={value}" if word.startswith(f"{option}=") else word for word in words]
        words = [value if before == option else word for before, word in zip(["", *joined], joined, strict=False)]
    return f"{program()} {shlex.join(words)}"
