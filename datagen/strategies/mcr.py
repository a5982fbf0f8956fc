"""Multi-chain reasoning (MCR, arXiv 2304.13007): several retrieval chains; a meta-reasoner combines their facts.

A chain decomposes the question: it asks a follow-up question, a passage is retrieved for it (sources/bm25.py), it
answers from the passage, and asks on, up to `--hops` times, until it gives a final answer. The first of `-k` chains
is greedy, the others are sampled. Then the facts of all finished chains, each a question with its answer, go to a
meta-reasoner, which explains its answer and names the facts that it rests on, or says that it is unsure.

Departures: passages come from a local corpus, not from a search engine, and every fact keeps document and place. A
chain without a final answer is dropped, where the public code uses its facts; so is one that asks the same question
twice. An explanation that names no fact, or one that does not exist, is no answer. How far the chains disagree is
kept as `meta.entropy`: a measure of how hard the question is.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.errors import CUT_ANSWER, UNPARSED, CallFailed, InputError, ParseError
from datagen.llm.model import Roles, gather_all
from datagen.records.record import SAMPLES_PER_PASS, Candidate, Record, Row, request_text
from datagen.sources.bm25 import BM25Index, Passage, load_index
from datagen.strategies.cot import read_answer
from datagen.strategies.strategy import VERIFY, Answer, Strategy
from datagen.verify.answers import answer_key, split_answer

CHAINS = 5
"""The paper uses 3 and 5 (section 4.1)."""
HOPS = 5
"""The public code's bound."""
STEP, META = "mcr/step", "mcr/meta"
CHAIN_TOKENS = 512
SAMPLED = 0.7
"""The temperature of all chains but the first."""
REASONING: dict[str, Any] = {"temperature": 0, "max_tokens": 1024}
LINE = re.compile(
    r"^(?:[^\S\n]|[*_>-])*(intermediate answer|follow-?up|final answer)[\s*_]*[:：][\s*_]*(\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
CITATION = re.compile(r" ?\[(\d{1,4})\]")
ENDINGS = {UNPARSED: "unread", CUT_ANSWER: "cut"}
"""How a chain ends whose reply cannot be used, by the reason."""
UNSURE = "unsure"
UNFINISHED = "unfinished chains"


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy mcr`."""

    k: int = option(CHAINS, "Chains per prompt.", least=1, most=SAMPLES_PER_PASS)
    verify: list[str] = option([], VERIFY, file=True)
    corpus: Path | None = option(None, "mcr: corpus to retrieve from: documents as rows, or lines of text.")
    hops: int = option(HOPS, "mcr: maximum number of follow-up questions per chain.", least=1, most=20)
    reasoning: str = reasoning_option()


class Turn(NamedTuple):
    """One reply of a chain."""

    answer: str | None
    """To the question of the turn before."""
    question: str | None
    final: str | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A question, its answer, and the passage retrieved for it."""

    question: str
    answer: str
    passage: Passage | None

    def as_meta(self) -> Row:
        passage = self.passage
        return {
            "question": self.question,
            "answer": self.answer,
            "doc_id": passage.document if passage else None,
            "span": [passage.start, passage.end] if passage else None,
        }


class Chain(NamedTuple):
    """A finished or ended chain of retrieval and reasoning."""

    facts: list[Fact]
    final: str | None = None
    ended: str = "final"
    """Why it ended: final, hops, repeated, unread or cut."""


class MetaReasoning(Strategy):
    """MCR: the explanation in which a meta-reasoner combines the facts of several chains."""

    variant = "mcr"
    options_type = Options
    options: Options
    templates = (STEP, META)
    reasons = {
        **Strategy.reasons,
        "no_finished_chain": "No chain reached a final answer from a fact. More --hops, or -k, may help.",
        "abstained": "The model says that the facts do not answer the question.",
    }
    asks = {
        **Strategy.asks,
        UNFINISHED: "A chain ends without a final answer where a reply is cut or cannot be read, a question "
        "comes again, or --hops are over: more --hops, or another model, may help.",
    }
    details = {
        "chains": [],
        "chains_unfinished": None,
        "entropy": None,
        "explanation": None,
        "cited": [],
        "abstained": None,
    }

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        async for candidate in super().generate(record, llm):
            meta = candidate.row["meta"]
            yield ask(candidate, UNFINISHED, len(meta["chains"]), meta["chains_unfinished"] or 0)

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Reason over several chains (section 3)."""
        # 1. Generate k chains (section 3.1).
        assert self.options.corpus is not None
        index = load_index(self.options.corpus)
        chains = await gather_all(self.follow_chain(record, llm, index, number) for number in range(self.options.k))
        details |= {
            "chains": [chain._asdict() | {"facts": [fact.as_meta() for fact in chain.facts]} for chain in chains],
            "chains_unfinished": sum(chain.final is None for chain in chains),
            "entropy": entropy([chain.final for chain in chains if chain.final is not None]),
        }

        # 2. Pool the facts of the finished chains; what several state is listed several times.
        facts = [fact for chain in chains if chain.final is not None for fact in chain.facts]
        if not facts:
            return [self.reject(record, details, "no_finished_chain")]

        # 3. Reason over the chains (section 3.2): an explanation that cites facts, and the answer.
        numbered = "\n".join(f"[{number}] {fact.question} {fact.answer}" for number, fact in enumerate(facts, 1))
        prompt = self.prompts[META].render(facts=numbered, prompt=request_text(record.prompt))
        completion = await self.ask(record, llm, prompt, parse=partial(read_explanation, facts=facts), **REASONING)
        answer, numbers = completion.value
        details |= {
            "explanation": completion.text,
            "cited": [{"number": number, **facts[number - 1].as_meta()} for number in numbers],
            "abstained": answer is None,
        }
        if answer is None:
            return [self.reject(record, details, "abstained", completion.text)]

        # 4. The response is the explanation without the numbers of the facts.
        response = CITATION.sub("", completion.text).strip()
        rationale = split_answer(response)[0]
        answers = await self.verify(record, [Answer(response, completion, rationale, answer)])
        return [self.accept(record, details, answers)]

    async def follow_chain(self, record: Record, llm: Roles, index: BM25Index, number: int) -> Chain:
        """Decompose the question and retrieve for each part, until a final answer (section 3.1)."""
        request = request_text(record.prompt)
        temperature = 0 if number == 0 else SAMPLED
        facts: list[Fact] = []
        passages: list[Passage | None] = []
        open_question: str | None = None
        while True:
            # 1. Retrieve the passage that fits the open question best; at first, the question itself.
            passages.append(next(iter(index.search(open_question or request)), None))

            # 2. The chain answers its open question from the passages, and asks the next one or concludes.
            history = [f"{fact.question} {fact.answer}" for fact in facts] + ([open_question] if open_question else [])
            prompt = self.prompts[STEP].render(
                contexts=numbered_passages(passages), facts="\n".join(history) or "(nothing)", prompt=request
            )
            try:
                completion = await self.ask(
                    record, llm, prompt, number, parse=read_turn, temperature=temperature, max_tokens=CHAIN_TOKENS
                )
            except CallFailed as error:
                if error.reason not in ENDINGS:
                    raise
                return Chain(facts, ended=ENDINGS[error.reason])
            turn: Turn = completion.value
            if open_question is not None:
                facts.append(Fact(open_question, turn.answer or "unknown", passages[-1]))

            # 3. It ends with an answer, a repeated question, or too many of them.
            if turn.question is None:
                return Chain(facts, final=turn.final)
            if any(answer_key(turn.question) == answer_key(fact.question) for fact in facts):
                return Chain(facts, ended="repeated")
            if len(facts) >= self.options.hops:
                return Chain(facts, ended="hops")
            open_question = turn.question

    def check(self) -> None:
        if self.options.corpus is None:
            raise InputError("--strategy mcr needs --corpus FILE: the texts to look facts up in")
        load_index(self.options.corpus)
        super().check()

    def bound(self, record: Record, llm: Roles) -> int:
        return self.options.k * (self.options.hops + 1) + 1


def numbered_passages(passages: Sequence[Passage | None]) -> str:
    """List passages by number, each in one line, so that none of them can begin a line of its own."""
    texts = (" ".join(passage.text.split()) if passage else "(nothing was found)" for passage in passages)
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts, 1))


def read_turn(text: str) -> Turn:
    """Read a reply of a chain; of two lines of a kind the last counts."""
    lines = {kind.lower().replace("-", "").replace(" ", ""): words.strip() for kind, words in LINE.findall(text)}
    turn = Turn(lines.get("intermediateanswer"), lines.get("followup"), lines.get("finalanswer"))
    if (turn.question is None) == (turn.final is None):
        raise ParseError("expected one line 'Follow-up: ...' or 'Final answer: ...'")
    return turn


def read_explanation(text: str, facts: Sequence[Fact]) -> tuple[str | None, list[int]]:
    """Return (answer, numbers of the facts it rests on); None for an abstention."""
    answer = read_answer(text)
    numbers = list(dict.fromkeys(int(number) for number in CITATION.findall(text)))
    if any(not 1 <= number <= len(facts) for number in numbers):
        raise ParseError(f"names a fact that does not exist; there are {len(facts)}")
    if answer_key(answer) == UNSURE:
        return None, numbers
    if not any(facts[number - 1].passage for number in numbers):
        raise ParseError("rests on no fact with a passage")
    return answer, numbers


def entropy(answers: Sequence[str]) -> float | None:
    """Return how far final answers disagree, in bits; None without an answer."""
    counts = Counter(map(answer_key, answers))
    total = counts.total()
    if not total:
        return None
    return round(abs(-sum(count / total * log2(count / total) for count in counts.values())), 4)
