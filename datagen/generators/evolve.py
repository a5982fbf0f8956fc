"""Evol-Instruct (WizardLM, arXiv 2304.12244, sections 3.2, 3.3 and 4.2): rewrite prompts into harder and rarer ones.

Each seed has one live prompt. In each of `rounds` rounds one of six operators is drawn with equal probability, the
evolver rewrites the live prompt with it, and the teacher answers the rewrite with no other context. A rewrite that
survives elimination (filters/elimination.py) is a row and becomes the live prompt; one that does not leaves its parent
to be tried again in the next round.

Departures. The paper makes both calls and then eliminates; here what the rewrite alone shows to have failed costs no
further call, and the equality question comes before the answer. An in-breadth rewrite replaces its parent too (the
paper does not say), so a seed stays one prompt. Two rules are added (refused, overgrown). The seeds themselves are not
repeated in the output.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datagen import parse
from datagen.errors import CallFailed
from datagen.filters.elimination import BEFORE_ANSWER, MAX_GROWTH, ON_ANSWER, ON_VERDICT, Step, eliminate
from datagen.llm.call import Completion
from datagen.llm.chat import Roles
from datagen.method import Method, Unique
from datagen.options import option
from datagen.prompts import Prompts, plain
from datagen.rows import (
    SAMPLES_PER_PASS,
    Candidate,
    Record,
    Row,
    Text,
    failed,
    kept,
    rejected,
    request_text,
    row_id,
    with_request,
)

OPERATORS = ("add_constraint", "deepen", "concretise", "add_reasoning", "complicate_input", "breadth")
"""Section 3.2: five in depth, one in breadth."""
ROUNDS = 4
"""Section 4.2."""
SAMPLING: dict[str, Any] = {"temperature": 1, "top_p": 0.9, "max_tokens": 2048}
"""Section 4.2."""
JUDGING: dict[str, Any] = {"temperature": 0, "max_tokens": 1024}
CALLS_PER_ROUND = 3
"""Rewrite, equality, answer."""
read_verdict = partial(parse.verdict, allowed=("equal", "not equal"))


@dataclass(frozen=True)
class Options:
    """What `datagen evolve` can be told."""

    rounds: int = option(ROUNDS, "Rounds of rewriting for each seed.", least=1, most=SAMPLES_PER_PASS)
    max_growth: int = option(MAX_GROWTH, "Words that a rewrite may add before it is dropped.", least=1)


@dataclass(frozen=True, slots=True)
class Live:
    """The one live prompt of a seed."""

    id: str
    prompt: Text


class Dropped(Exception):
    """A rule of elimination drops the rewrite."""

    def __init__(self, reason: str, stage: str, reply: str) -> None:
        super().__init__(reason)
        self.reason, self.stage, self.reply = reason, stage, reply


@dataclass
class Evolution:
    """One round of one seed: what is asked of whom, and what is known so far."""

    record: Record
    live: Live
    llm: Roles
    prompts: Prompts
    options: Options
    round: int

    def __post_init__(self) -> None:
        self.operator = self.record.random(f"operator, round {self.round}").choice(OPERATORS)
        self.sample = self.record.sample(self.round - 1)
        template = self.prompts[f"evolve/{self.operator}"]
        self.meta: Row = {
            "method": "evolve",
            "op": self.operator,
            "round": self.round,
            "pass": self.record.pass_no,
            "parents": [self.live.id],
            "seed_id": self.record.id,
            "source_id": self.record.source_id,
            "template": template.name,
            "template_digest": template.digest,
            "evolver": self.llm.model("evolver", self.sample).identity,
            "judge": None,
            "model": None,
            "words_before": parse.count_words(request_text(self.live.prompt)),
            "words_after": None,
            "finish_reason": None,
            "usage": None,
        }

    async def run(self) -> Candidate:
        """Rewrite, judge, answer; stop where a rule or an error says so."""
        about: Row = {"id": self.live.id, "prompt": self.live.prompt}
        try:
            child = await self.rewrite()
            about["child"] = child
            await self.judge(child)
            answer = await self.answer(child)
        except Dropped as drop:
            return rejected(drop.reason, stage=drop.stage, record=about, reply=drop.reply, meta=self.meta)
        except CallFailed as error:
            about["error"] = error.detail
            return failed(error.reason, stage=error.stage, record=about, reply=error.reply, meta=self.meta)
        return kept(self.row(child, answer))

    async def rewrite(self) -> str:
        """Have the live prompt rewritten; check what the rewrite alone shows."""
        before = request_text(self.live.prompt)
        prompt = self.prompts[f"evolve/{self.operator}"].render(prompt=before)
        child = (await self.llm.chat("evolver", prompt, sample=self.sample, **SAMPLING)).text.strip()
        self.meta["words_after"] = parse.count_words(child)
        step = Step(before, child, max_growth=self.options.max_growth)
        self.check(eliminate(step, BEFORE_ANSWER), "rewrite", child)
        return child

    async def judge(self, child: str) -> None:
        """Ask whether anything was gained. A verdict that cannot be read is an error, never an opinion."""
        before = request_text(self.live.prompt)
        prompt = self.prompts["evolve/equal"].render(first=before, second=child)
        self.meta["judge"] = self.llm.model("judge").identity
        said = await self.llm.chat("judge", prompt, parse=read_verdict, **JUDGING)
        self.check(eliminate(Step(before, child, verdict=said.value), ON_VERDICT), "judge", said.text)

    async def answer(self, child: str) -> Completion:
        """Have the rewrite answered as if it were the only thing ever asked."""
        asked = with_request(self.live.prompt, child)
        self.meta["model"] = self.llm.model("teacher", self.sample).identity
        said = await self.llm.chat("teacher", plain(asked), sample=self.sample, **SAMPLING)
        self.meta |= {"finish_reason": said.finish_reason, "usage": said.usage}
        step = Step(request_text(self.live.prompt), child, response=said.text)
        self.check(eliminate(step, ON_ANSWER), "answer", said.text)
        return said

    def check(self, reason: str | None, stage: str, reply: str) -> None:
        if reason:
            raise Dropped(reason, stage, reply)

    def row(self, child: str, answer: Completion) -> Row:
        prompt = with_request(self.live.prompt, child)
        name = row_id("evolve", [self.live.id], [self.record.pass_no, self.round], [prompt, answer.text])
        return {"id": name, "prompt": prompt, "response": answer.text, "meta": self.meta, **self.record.extra}


async def evolve(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one candidate a round. A failed call ends the chain; running the command again asks for it again."""
    live = Live(record.id, record.prompt)
    for number in range(1, options.rounds + 1):
        candidate = await Evolution(record, live, llm, prompts, options, number).run()
        yield candidate
        if candidate.status == "failed":
            return
        if candidate.status == "kept":
            live = Live(candidate.row["id"], candidate.row["prompt"])


@dataclass
class RoundTable:
    """Counts per round and per operator: where candidates ended, and how the kept ones grew."""

    rounds: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    operators: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        outcome = {"kept": "kept", "failed": "failed"}.get(candidate.status, candidate.reason)
        for counts in (self.rounds[meta["round"]], self.operators[meta["op"]]):
            counts.update(("asked", outcome))
        if candidate.status == "kept":
            self.words[meta["round"]].update(before=meta["words_before"], after=meta["words_after"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "rounds": {str(n): dict(sorted(self.rounds[n].items())) for n in sorted(self.rounds)},
            "words": {str(n): dict(self.words[n]) for n in sorted(self.words)},
            "operators": {name: dict(sorted(self.operators[name].items())) for name in sorted(self.operators)},
        }

    def tables(self) -> list[list[list[str]]]:
        outcomes = sorted({key for counts in self.rounds.values() for key in counts} - {"asked", "kept"})
        heading = ["asked", "kept", *outcomes]
        rounds = [[str(n), *_shares(self.rounds[n], heading), self._growth(n)] for n in sorted(self.rounds)]
        mix = [[name, *_shares(self.operators[name], heading)] for name in OPERATORS if name in self.operators]
        return [[["round", *heading, "words"], *rounds], [["operator", *heading], *mix]]

    def _growth(self, number: int) -> str:
        """Mean words of the kept rewrites' parents and of the rewrites."""
        kept_rows = self.rounds[number]["kept"]
        if not kept_rows:
            return "-"
        return " → ".join(f"{self.words[number][when] / kept_rows:.0f}" for when in ("before", "after"))


def _shares(counts: Counter[str], heading: list[str]) -> list[str]:
    """The number asked, then each outcome in percent of it."""
    return [str(counts["asked"]), *(f"{100 * counts[name] / counts['asked']:.0f} %" for name in heading[1:])]


METHOD = Method(
    name="evolve",
    generate=evolve,
    options=Options,
    roles={
        "evolver": "rewrites prompts",
        "judge": "says whether a rewrite asks for more",
        "teacher": "answers the rewritten prompts",
    },
    templates=(*(f"evolve/{name}" for name in OPERATORS), "evolve/equal"),
    candidates=lambda options: options.rounds,
    calls=lambda options: options.rounds * CALLS_PER_ROUND,
    memory=lambda options: [Unique("prompt")],
    table=lambda options: RoundTable(),
    next_command=lambda options: "datagen train sft {}",
)
