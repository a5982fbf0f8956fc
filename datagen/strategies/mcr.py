"""Meta-reasoning over multiple chains (MCR, arXiv 2304.13007): several chains look facts up, one mind weighs them.

A chain decomposes the question: it asks a follow-up question, a passage is found for it (evidence.py), it answers
from the passage, and asks on, up to `--turns` times, until it gives a final answer. The first of `-k` chains is
greedy, the others are sampled. Then the facts of all finished chains, each a question with its answer, go to a
meta-reasoner, which explains its answer and names the facts that it rests on, or says that it is unsure.

Departures: evidence comes from a local corpus, not from a search engine, and every fact keeps document and place. A
chain without a final answer is dropped, where the public code uses its facts; so is one that asks the same question
twice. An explanation that names no fact, or one that does not exist, is no answer. How far the chains disagree is
kept as `meta.entropy`: a measure of how hard the question is.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.errors import CallFailed, InputError, ParseError
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.record import Candidate, Record, Row, request_text
from datagen.sources.bm25 import Evidence, Passage, load_evidence
from datagen.strategies.answering import TEACHER, VERIFY, Answer, Answering, check_names, samples_option, together
from datagen.verify.answers import answer_key, split_answer

CHAINS = 5
"""The paper uses 3 and 5 (section 4.1)."""
TURNS = 5
"""The public code's bound."""
STEP, META = "mcr/step", "mcr/meta"
STEPPING: dict[str, Any] = {"max_tokens": 512}
SAMPLED = 0.7
"""The temperature of all chains but the first."""
REASONING: dict[str, Any] = {"temperature": 0, "max_tokens": 1024}
LINE = re.compile(r"^[\s*_>-]*(intermediate answer|follow-?up|final answer)[\s*_]*[:：][\s*_]*(\S.*)$", re.I | re.M)
CITED = re.compile(r" ?\[(\d{1,4})\]")
UNSURE = "unsure"


@dataclass(frozen=True)
class Options:
    """What meta-reasoning can be told."""

    k: int = samples_option(CHAINS, "Chains for each prompt.")
    verify: list[str] = option([], VERIFY)
    corpus: Path | None = option(None, "mcr: the texts to look facts up in: rows with a text, or lines.")
    turns: int = option(TURNS, "mcr: the most questions that a chain may ask.", least=1, most=20)


class Turn(NamedTuple):
    """What a chain says in one turn."""

    answer: str | None
    """To the question of the turn before."""
    question: str | None
    final: str | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A question, its answer, and the passage that was found for it."""

    question: str
    answer: str
    passage: Passage | None

    def as_meta(self) -> Row:
        found = self.passage
        span = {"doc_id": found.document, "span": [found.start, found.end]} if found else {"doc_id": None, "span": None}
        return {"question": self.question, "answer": self.answer, **span}


@dataclass
class Chain:
    """One way through the question."""

    facts: list[Fact] = field(default_factory=list)
    final: str | None = None
    ended: str = "final"
    """Why it ended: final, turns, repeated or unread."""

    def as_meta(self) -> Row:
        return {"facts": [fact.as_meta() for fact in self.facts], "final": self.final, "ended": self.ended}


def read_turn(text: str) -> Turn:
    """Read what a chain says; of two lines of a kind the last counts."""
    said = {kind.lower().replace("-", "").replace(" ", ""): words.strip() for kind, words in LINE.findall(text)}
    turn = Turn(said.get("intermediateanswer"), said.get("followup"), said.get("finalanswer"))
    if (turn.question is None) == (turn.final is None):
        raise ParseError("expected one line 'Follow-up: ...' or 'Final answer: ...'")
    return turn


def shown_passages(passages: Sequence[Passage | None]) -> str:
    """Show passages by number, each in one line, so that none of them can begin a line of its own."""
    texts = (" ".join(passage.text.split()) if passage else "(nothing was found)" for passage in passages)
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts, 1))


def shown_facts(facts: Sequence[Fact]) -> str:
    lines = (f"[{number}] {fact.question} {fact.answer}" for number, fact in enumerate(facts, 1))
    return "\n".join(lines) or "(nothing)"


async def follow(answering: Answering, evidence: Evidence, number: int, turns: int) -> Chain:
    """Follow one chain to its end."""
    chain, question = Chain(), request_text(answering.record.prompt)
    passages: list[Passage | None] = [find(evidence, question)]
    asked: str | None = None
    while True:
        fields = {"contexts": shown_passages(passages), "facts": shown_asked(chain.facts, asked), "prompt": question}
        prompt = answering.prompts[STEP].render(**fields)
        heat = 0 if number == 0 else SAMPLED
        try:
            said = await answering.ask(prompt, number, parse=read_turn, temperature=heat, **STEPPING)
        except CallFailed as error:
            if error.reason != "unparsed answer":
                raise
            return ended(chain, "unread")
        turn: Turn = said.value
        if asked is not None:
            chain.facts.append(Fact(asked, turn.answer or "unknown", passages[-1]))
        if turn.final is not None:
            chain.final = turn.final
            return chain
        assert turn.question is not None
        if any(answer_key(turn.question) == answer_key(fact.question) for fact in chain.facts):
            return ended(chain, "repeated")
        if len(chain.facts) >= turns:
            return ended(chain, "turns")
        asked = turn.question
        passages.append(find(evidence, asked))


def ended(chain: Chain, why: str) -> Chain:
    chain.ended = why
    return chain


def find(evidence: Evidence, query: str) -> Passage | None:
    return next(iter(evidence.search(query)), None)


def shown_asked(facts: Sequence[Fact], asked: str | None) -> str:
    """Show the questions so far, the last one still open."""
    lines = [f"{fact.question} {fact.answer}" for fact in facts] + ([asked] if asked else [])
    return "\n".join(lines) or "(nothing)"


async def mcr(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one row: the explanation that the meta-reasoner gives, ending in its answer."""
    assert options.corpus is not None
    evidence = load_evidence(options.corpus)
    answering = Answering(record, llm, prompts, "mcr", options.verify, dict(NOTHING), (STEP, META))

    async def reason() -> list[Candidate]:
        chains = await together([follow(answering, evidence, number, options.turns) for number in range(options.k)])
        finished = [chain for chain in chains if chain.final is not None]
        facts = [fact for chain in finished for fact in chain.facts]  # what several say is said several times
        answering.extra |= tell(chains)
        if not facts:
            return [answering.rejected("no_finished_chain", None)]
        return [await weigh(answering, facts)]

    async for candidate in answering.attempt(reason()):
        yield candidate


async def weigh(answering: Answering, facts: Sequence[Fact]) -> Candidate:
    """Have the facts weighed, and make the row."""
    question = request_text(answering.record.prompt)
    prompt = answering.prompts[META].render(facts=shown_facts(facts), prompt=question)
    said = await answering.ask(prompt, parse=lambda text: read_explanation(text, facts), **REASONING)
    answer, cited = said.value
    answering.extra |= {
        "explanation": said.text,
        "cited": [{"number": number, **facts[number - 1].as_meta()} for number in cited],
        "abstained": answer is None,
    }
    if answer is None:
        return answering.rejected("abstained", said.text)
    response = CITED.sub("", said.text).strip()
    return answering.judged(Answer(response, said, split_answer(response)[0], answer))


def read_explanation(text: str, facts: Sequence[Fact]) -> tuple[str | None, list[int]]:
    """Return (answer, numbers of the facts it rests on); None for an abstention."""
    answer = split_answer(text)[1]
    if answer is None:
        raise ParseError("no line 'Answer: ...'")
    cited = list(dict.fromkeys(int(number) for number in CITED.findall(text)))
    if any(not 1 <= number <= len(facts) for number in cited):
        raise ParseError(f"names a fact that does not exist; there are {len(facts)}")
    if answer_key(answer) == UNSURE:
        return None, cited
    if not any(facts[number - 1].passage for number in cited):
        raise ParseError("rests on no fact with a passage")
    return answer, cited


NOTHING: Row = {
    "chains": [],
    "chains_unfinished": None,
    "entropy": None,
    "explanation": None,
    "cited": [],
    "abstained": None,
}


def tell(chains: Sequence[Chain]) -> Row:
    """Tell of the chains, and how far their answers lie apart, in bits."""
    finals = Counter(answer_key(chain.final) for chain in chains if chain.final is not None)
    total = finals.total()
    entropy = -sum(count / total * log2(count / total) for count in finals.values()) if total else None
    return {
        "chains": [chain.as_meta() for chain in chains],
        "chains_unfinished": sum(chain.final is None for chain in chains),
        "entropy": None if entropy is None else round(abs(entropy), 4),
    }


def prepare(options: Options) -> None:
    if options.corpus is None:
        raise InputError("--strategy mcr needs --corpus FILE: the texts to look facts up in")
    load_evidence(options.corpus)
    check_names(options)


class MetaReasoning(Method):
    """mcr."""

    name = "respond"
    variant = "mcr"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (STEP, META)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return mcr(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return self.options.k * (self.options.turns + 1) + 1

    def check(self) -> None:
        prepare(self.options)
