"""Evol-Instruct (WizardLM, arXiv 2304.12244, sections 3.2, 3.3 and 4.2): rewrite prompts into harder and rarer ones.

    general    five operators in depth and one in breadth, four rounds (WizardLM)
    code       five ways to make a programming task harder, three rounds (WizardCoder, arXiv 2306.08568, section 3.1)
    math       two rounds downward, to easier problems, then three upward (WizardMath, arXiv 2308.09583, section 2.1)

Each seed has one live prompt. In each of `rounds` rounds one of six operators is drawn with equal probability, the
evolver rewrites the live prompt with it, and the teacher answers the rewrite with no other context. A rewrite that
survives elimination (filters/elimination.py) is a row and becomes the live prompt; one that does not leaves its parent
to be tried again in the next round.

Departures. The paper makes both calls and then eliminates; here what the rewrite alone shows to have failed costs no
further call, and the equality question comes before the answer. An in-breadth rewrite replaces its parent too (the
paper does not say), so a seed stays one prompt. Two rules are added (refused, overgrown). The seeds themselves are not
repeated in the output. WizardCoder and WizardMath report no elimination; here the rules hold for them as well. Their
papers stop evolving when a score on other data falls: that is for whoever trains to see, and `--rounds` may be raised
one by one, since what was paid for is recorded.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Any, NamedTuple

from datagen import parse
from datagen.engine.method import Method, Unique
from datagen.engine.options import option
from datagen.errors import CallFailed, InputError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts, plain
from datagen.records.record import (
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
from datagen.select.elimination import BEFORE_ANSWER, MAX_GROWTH, ON_ANSWER, ON_VERDICT, Step, eliminate
from datagen.verify.languages import is_chinese

OPERATORS = ("add_constraint", "deepen", "concretise", "add_reasoning", "complicate_input", "breadth")
"""Section 3.2: five in depth, one in breadth."""
CODE = ("add_constraint", "rare_requirement", "add_reasoning", "misdirect", "complexity")
DOWNWARD, UPWARD = ("easier", "easier_topic"), ("add_constraint", "concretise", "add_reasoning")
DOWNWARD_ROUNDS = 2
"""WizardMath: two rounds downward, three upward."""


class Style(NamedTuple):
    """A way to evolve."""

    folder: str
    """Where its prompts are."""
    frame: str | None
    """The prompt that all operators share, with a place for the method; None if each has its own."""
    rounds: int
    operators: Callable[[int], tuple[str, ...]]
    """Round to the operators that are drawn from in it."""


STYLES = {
    "general": Style("evolve", None, 4, lambda number: OPERATORS),
    "code": Style("evolve_code", "evolve_code/harder", 3, lambda number: CODE),
    "math": Style(
        "evolve_math", "evolve_math/change", 5, lambda number: DOWNWARD if number <= DOWNWARD_ROUNDS else UPWARD
    ),
}
LANGUAGES = ("auto", "en", "zh")
SAMPLING: dict[str, Any] = {"temperature": 1, "top_p": 0.9, "max_tokens": 2048}
"""Section 4.2."""
JUDGING: dict[str, Any] = {"temperature": 0, "max_tokens": 1024}
CALLS_PER_ROUND = 3
"""Rewrite, equality, answer."""
read_verdict = partial(parse.verdict, allowed=("equal", "not equal"))


@dataclass(frozen=True)
class Options:
    """What `datagen evolve` can be told."""

    rounds: int = option(4, "Rounds of rewriting for each seed. [4; code: 3, math: 5]", least=1, most=SAMPLES_PER_PASS)
    max_growth: int = option(MAX_GROWTH, "Words that a rewrite may add before it is dropped.", least=1)
    lang: str = option("auto", "The language of the prompts that ask: en, zh, or auto: the seed's own.")


def options_of(style: Style) -> type:
    """Return the options, with as many rounds as the style's paper has."""
    rounds = option(style.rounds, fields(Options)[0].metadata["help"], least=1, most=SAMPLES_PER_PASS)
    return make_dataclass("Options", [("rounds", int, rounds)], bases=(Options,), frozen=True)


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
    style: Style
    round: int

    def __post_init__(self) -> None:
        operators = self.style.operators(self.round)
        self.operator = self.record.random(f"operator, round {self.round}").choice(operators)
        self.sample = self.record.sample(self.round - 1)
        self.language = language_of(self.record.prompt, self.options.lang, self.style)
        template = self.prompts[f"{self.style.folder}/{self.operator}{self.language}"]
        self.meta: Row = {
            "method": "evolve",
            "op": self.operator,
            "round": self.round,
            "pass": self.record.pass_no,
            "parents": [self.live.id],
            "seed_id": self.record.meta.get("seed_id") or self.record.id,
            "source_id": self.record.source_id,
            "template": template.name + self.language,
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
        prompt = self.ask_for_rewrite(before)
        child = (await self.llm.chat("evolver", prompt, sample=self.sample, **SAMPLING)).text.strip()
        self.meta["words_after"] = parse.count_words(child)
        step = Step(before, child, max_growth=self.options.max_growth)
        self.check(eliminate(step, BEFORE_ANSWER), "rewrite", child)
        return child

    def ask_for_rewrite(self, before: str) -> Prompt:
        own = self.prompts[f"{self.style.folder}/{self.operator}{self.language}"]
        if self.style.frame is None:
            return own.render(prompt=before)
        (method,) = own.render().messages
        return self.prompts[self.style.frame].render(prompt=before, method=method["content"])

    async def judge(self, child: str) -> None:
        """Ask whether anything was gained. A verdict that cannot be read is an error, never an opinion."""
        before = request_text(self.live.prompt)
        prompt = self.prompts[f"evolve/equal{self.language}"].render(first=before, second=child)
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


def language_of(prompt: Text, told: str, style: Style) -> str:
    """Return the ending of the prompts to ask with: Chinese ones for Chinese seeds, where the style has them."""
    if style.frame is not None or told == "en":
        return ""
    return ".zh" if told == "zh" or is_chinese(request_text(prompt)) else ""


def make(style: Style) -> Any:
    """Return the generator of one style."""

    async def evolve(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
        """Yield one candidate a round. A failed call ends the chain; running the command again asks for it again."""
        live = Live(record.id, record.prompt)
        for number in range(1, options.rounds + 1):
            candidate = await Evolution(record, live, llm, prompts, options, style, number).run()
            yield candidate
            if candidate.status == "failed":
                return
            if candidate.status == "kept":
                live = Live(candidate.row["id"], candidate.row["prompt"])

    return evolve


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
        mix = [[name, *_shares(self.operators[name], heading)] for name in sorted(self.operators)]
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


def templates(style: Style) -> tuple[str, ...]:
    """Name every prompt of a style."""
    operators = dict.fromkeys(name for number in range(1, style.rounds + 1) for name in style.operators(number))
    own = [f"{style.folder}/{name}" for name in operators]
    chinese = [f"{name}.zh" for name in (*own, "evolve/equal")] if style.frame is None else []
    return (*own, *filter(None, [style.frame]), "evolve/equal", *chinese)


def check_language(style: Style, options: Options) -> None:
    if options.lang not in LANGUAGES:
        raise InputError(f"--lang {options.lang}: expected {', '.join(LANGUAGES)}")
    if options.lang == "zh" and style.frame:
        raise InputError("--lang zh: code and math have English prompts alone; --style general has Chinese ones")


def method(name: str) -> Method:
    style = STYLES[name]
    return Method(
        name="evolve",
        way=name,
        generate=make(style),
        options=options_of(style),
        roles={
            "evolver": "rewrites prompts",
            "judge": "says whether a rewrite asks for more",
            "teacher": "answers the rewritten prompts",
        },
        templates=templates(style),
        candidates=lambda options: options.rounds,
        calls=lambda options: options.rounds * CALLS_PER_ROUND,
        memory=lambda options: [Unique("prompt")],
        table=lambda options: RoundTable(),
        next_command=lambda options: "datagen train sft {}",
        prepare=partial(check_language, style),
    )


METHODS = {name: method(name) for name in STYLES}
CHOICE = "style"
