"""Instruction backtranslation (Humpback, arXiv 2308.06259; back-and-forth translation, arXiv 2408.04614).

A corpus is parted into self-contained segments (corpus.py, segments.py). The backward model writes the instruction that
a segment would be the answer to; the judge rates the pair by five statements, a point each, and the mean of several
ratings decides; the teacher may then rewrite the text into an answer (`--rewrite`: better than filtering, and best
with it, arXiv 2408.04614). Rows carry a system message that tells where the answer comes from, since training on
both kinds without it costs 6.5 points of win rate (2308.06259, table 5). Seeds in the corpus go through, tagged.

Departures: the paper picks one of five descriptions, which agrees with people far less than adding up points
(arXiv 2401.10020); and it does not say how a whole number comes to exceed 4.5: here it is the mean of `--samples`.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.errors import CallFailed, ParseError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts, plain_prompt
from datagen.records.record import Candidate, Messages, Record, Row, fail, keep, reject, row_id
from datagen.sources.corpus import CORPUS
from datagen.text import tokens

INSTRUCT, RATE, REWRITE, WEB, SEED = (
    f"backtranslate/{name}" for name in ("instruct", "rate", "rewrite", "web", "seed")
)
ASKING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 512}
"""Section 2.2: nucleus sampling, one instruction a segment."""
RATING: dict[str, Any] = {"temperature": 1, "max_tokens": 512}
WRITING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}
POINTS, THRESHOLD, SAMPLES = 5, 4.5, 3
"""A5 of the paper are pairs of at least 4.5, A4 of at least 4."""
LONGEST = 2000
"""Characters of an instruction; longer ones are texts, not requests."""
COPIED = 25
"""Words in a row that an instruction and its text share when one was copied from the other."""
QUOTES = "\"“”'`*"
LABEL = re.compile(r"\A(?:instruction|request|prompt|question|指令|请求|问题)\s*[:：]\s*", re.IGNORECASE)
MENTIONS = re.compile(
    r"\b(?:the|this|that|given|following|above|provided) (?:\w+ )?(?:text|passage|article|document|paragraph|segment)"
    r"\b|"
    r"(?:上面|下面|以上|以下|这段|这篇|该|本)(?:的)?(?:文|段落|文章|文字|文本)",
    re.IGNORECASE,
)
POINTS_LINE = re.compile(r"^[\s*_#>`]*score[\s*_`]*[:：][\s*_`]*(\d+(?:\.\d+)?)(?:\s*/\s*5)?[\s*_`.]*$", re.I | re.M)


@dataclass(frozen=True)
class Options:
    """What backtranslation can be told."""

    threshold: float = option(THRESHOLD, "The least mean rating; 0 leaves rating out.", least=0, most=POINTS)
    samples: int = option(SAMPLES, "Ratings of each pair, whose mean counts.", least=1, most=100)
    rewrite: bool = option(False, "Have the text rewritten into an answer.")
    trained: bool = option(False, "The backward model comes from 'train sft --backward': it gets the text alone.")
    untagged: bool = option(False, "Leave out the system messages that tell where an answer comes from.")


def read_instruction(text: str) -> str:
    """Take an instruction out of its quotation marks and labels."""
    said = LABEL.sub("", text.strip().strip(QUOTES)).strip().strip(QUOTES).strip()
    if not said or len(said) > LONGEST:
        raise ParseError(f"an instruction of {len(said)} characters")
    return said


def read_points(text: str) -> float:
    """Return the points of the last line `Score: N`."""
    found = POINTS_LINE.findall(text)
    if not found or float(found[-1]) > POINTS:
        raise ParseError(f"no line 'Score: 0 to {POINTS}'")
    return float(found[-1])


def instruction_fault(instruction: str, text: str) -> str | None:
    """Say why an instruction cannot stand without its text, if so."""
    if MENTIONS.search(instruction):
        return "mentions_text"
    words, whole = tokens(instruction), " ".join(tokens(text))
    runs = (" ".join(words[at : at + COPIED]) for at in range(len(words) - COPIED + 1))
    return "copies_text" if any(run in whole for run in runs) else None


@dataclass
class Work:
    """One segment on its way to a row."""

    record: Record
    llm: Roles
    prompts: Prompts
    options: Options
    text: str
    instruction: str = ""
    ratings: list[float] = field(default_factory=list)
    backward: Completion | None = None
    rewritten: Completion | None = None

    @property
    def is_seed(self) -> bool:
        return self.record.meta.get("document") is None

    async def instruct(self) -> None:
        if self.options.trained:
            prompt = plain_prompt(self.text)
        else:
            prompt = self.prompts[INSTRUCT].render(header=str(self.record.prompt), text=self.text)
        sample = self.record.sample(0)
        self.backward = await self.llm.chat("backward", prompt, sample=sample, parse=read_instruction, **ASKING)
        self.instruction = self.backward.value

    async def rate(self) -> float:
        """Return the mean of the ratings; one that cannot be read is none, and fails the row."""
        prompt = self.prompts[RATE].render(prompt=self.instruction, response=self.text)
        calls = [
            self.llm.chat("judge", prompt, sample=self.record.sample(n), parse=read_points, **RATING)
            for n in range(self.options.samples)
        ]
        self.ratings = [said.value for said in await asyncio.gather(*calls)]
        return fmean(self.ratings)

    async def rewrite(self) -> str:
        prompt = self.prompts[REWRITE].render(prompt=self.instruction, response=self.text)
        self.rewritten = await self.llm.chat("teacher", prompt, sample=self.record.sample(0), **WRITING)
        return self.rewritten.text

    @property
    def prompt(self) -> str | Messages:
        """The instruction, behind the system message that tells the kind of the row."""
        if self.options.untagged:
            return self.instruction
        tag = self.prompts[SEED if self.is_seed else WEB].render().messages
        return [*tag, {"role": "user", "content": self.instruction}]

    def meta(self) -> Row:
        known = self.record.meta
        return {
            "method": "backtranslate",
            "op": "seed" if self.is_seed else "augmented",
            "pass": self.record.pass_no,
            **self.record.lineage,
            **{name: known.get(name) for name in ("document", "span", "licence")},
            "header": None if self.is_seed else self.record.prompt,
            "ratings": self.ratings,
            "rating": round(fmean(self.ratings), 4) if self.ratings else None,
            "text": self.text if self.rewritten else None,
            "backward": self.backward.model if self.backward else None,
            "model": self.rewritten.model if self.rewritten else None,
        }

    def row(self, response: str) -> Candidate:
        name = row_id("backtranslate", [self.record.id], self.record.pass_no, [self.instruction, response])
        return keep({"id": name, "prompt": self.prompt, "response": response, "meta": self.meta()})

    def about(self) -> Row:
        return {"id": self.record.id, "header": self.record.prompt, "prompt": self.instruction, "text": self.text}

    def dropped(self, reason: str, stage: str, reply: str | None = None) -> Candidate:
        return reject(reason, stage=stage, record=self.about(), reply=reply, meta=self.meta())


async def backtranslate(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield the row of a segment, or of a seed."""
    work = Work(record, llm, prompts, options, record.response or "")
    try:
        yield await conclude(work)
    except CallFailed as error:
        yield fail(error, record=work.about(), meta=work.meta())


async def conclude(work: Work) -> Candidate:
    """Ask, rate, rewrite; stop at the first thing that is wrong."""
    if work.is_seed:
        work.instruction = str(work.record.prompt)
        return work.row(work.text)
    if reason := work.record.meta["reason"]:
        return work.dropped(reason, "segment")
    await work.instruct()
    if reason := instruction_fault(work.instruction, work.text):
        return work.dropped(reason, "instruct", work.instruction)
    if work.options.threshold and await work.rate() < work.options.threshold:
        return work.dropped("low_rating", "rate")
    if not work.options.rewrite:
        return work.row(work.text)
    answer = await work.rewrite()
    if MENTIONS.search(answer[:200]):
        return work.dropped("mentions_text", "rewrite", answer)
    return work.row(answer)


class Backtranslate(Method):
    """backtranslate."""

    name = "backtranslate"
    options_type = Options
    options: Options
    roles = {
        "backward": "writes the instruction of a text",
        "judge": "rates the pairs",
        "teacher": "rewrites the texts",
    }
    templates = (INSTRUCT, RATE, REWRITE, WEB, SEED)
    kind = CORPUS

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return backtranslate(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return 1 + (self.options.samples if self.options.threshold else 0) + self.options.rewrite
