"""Instruction backtranslation (Humpback, arXiv 2308.06259; back-and-forth translation, arXiv 2408.04614).

A corpus is split into self-contained segments (sources/corpus.py, sources/segments.py). The backward model writes the
instruction that a segment would answer; the judge rates the pair by five statements, a point each, and the mean of
several ratings decides; the teacher may then rewrite the text into an answer (`--rewrite`: better than filtering, and
best with it, arXiv 2408.04614). Rows carry a system message that names the source of the answer, since training on
both kinds without it costs 6.5 points of win rate (2308.06259, table 5). Seeds in the corpus are kept, with a tag.

Departures: the paper picks one of five descriptions, which agrees with people far less than adding up points
(arXiv 2401.10020); and it does not say how a whole number comes to exceed 4.5: here it is the mean of `--samples`.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.engine.reasoning import ONLY, reasoning_option
from datagen.engine.unobtained import ask
from datagen.errors import UNPARSED, CallFailed, InputError, ParseError
from datagen.llm.model import Roles, gather_all
from datagen.records.record import (
    Candidate,
    Record,
    Row,
    Text,
    fail,
    keep,
    plain_prompt,
    reasoning_field,
    reject,
    row_id,
)
from datagen.select.mentions import points_at_text
from datagen.select.wrapping import unwrap, unwrap_answer
from datagen.sources.corpus import CORPUS, REASONS
from datagen.text import tokens

INSTRUCT, RATE, REWRITE, WEB, SEED = (
    f"backtranslate/{name}" for name in ("instruct", "rate", "rewrite", "web", "seed")
)
INSTRUCTION_SAMPLING: dict[str, Any] = {"max_tokens": 512}
RATING_SAMPLING: dict[str, Any] = {"temperature": 1, "max_tokens": 512}
REWRITE_SAMPLING: dict[str, Any] = {"max_tokens": 2048}
UNRATED = "unrated pairs"
POINTS, THRESHOLD, SAMPLES = 5, 4.5, 3
"""The paper's A5 has the pairs of at least 4.5, A4 those of at least 4."""
MAX_INSTRUCTION = 2000
"""Characters of an instruction; longer ones are texts, not requests."""
COPIED_WORDS = 25
"""Consecutive words that an instruction and its text share when one was copied from the other."""
QUOTES = "\"“”'`*"
"""Signs around an instruction, also where one of a pair is missing."""
ANSWER_START = 200
"""Characters in which a rewritten answer speaks of its text, if it does."""
SCORE_LINE = re.compile(
    r"""^(?:[^\S\n]|[*_#>`])*+ score [\s*_`]*[:：][\s*_`]*(\d+(?:\.\d+)?)(?:\s*/\s*5)? (?:[^\S\n]|[*_`.])*+$""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True)
class Options:
    """Options of `datagen backtranslate`."""

    threshold: float = option(THRESHOLD, "Minimum mean rating of a pair; 0 = do not rate.", least=0, most=POINTS)
    samples: int = option(SAMPLES, "Number of ratings per pair, which are averaged.", least=1, most=100)
    rewrite: bool = option(False, "Rewrite each text into an answer.")
    trained: bool = option(
        False, "The backward model was trained by 'train sft --backward', so its prompt is the text alone."
    )
    untagged: bool = option(False, "Leave out the system message that names the source of the answer.")
    reasoning: str = reasoning_option()


class Backtranslate(Method):
    """Write the instructions that the segments of a corpus answer, and keep the pairs that a judge rates highly."""

    name = "backtranslate"
    options_type = Options
    options: Options
    roles = {
        "backward": "writes an instruction for each text",
        "judge": "rates the pairs",
        "teacher": "rewrites the texts",
    }
    templates = (INSTRUCT, RATE, REWRITE, WEB, SEED)
    kind = CORPUS
    reasons = {
        **REASONS,
        "duplicate": "An earlier passage, or an earlier row of the output, holds the same texts.",
        "mentions_text": "The instruction, or the rewritten answer, points at the text that it was made from.",
        "copies_text": "The instruction copies a long run of words from its text.",
        "low_rating": "The mean rating of the pair is below --threshold.",
    }
    asks = {UNRATED: "The judge does not rate in the form that is asked for: name another --judge."}

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidate of one segment, or of one seed, with whether it could be rated."""
        async for candidate in self.pair(record, llm):
            row = candidate.row
            unread = candidate.reason == UNPARSED and row["stage"] == RATE
            yield ask(candidate, UNRATED, int(unread or bool(row["meta"]["ratings"])), int(unread))

    async def pair(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidate of one segment, or of one seed."""
        text, seed, sample = record.response or "", record.meta.get("document") is None, record.sample(0)
        subject: Row = {"id": record.id, "header": record.prompt, "prompt": "", "text": text, **record.extra}
        meta: Row = self.row_meta(
            record,
            "seed" if seed else "augmented",
            **{name: record.meta.get(name) for name in ("document", "span", "licence")},
            header=None if seed else record.prompt,
            ratings=[],
            rating=None,
            text=None,
            backward=None,
            model=None,
        )

        # 1. Seeds are kept as they are; segments that a rule rejected cost no call.
        if seed:
            yield self.row(record, meta, str(record.prompt), text, record.reasoning)
            return
        if reason := record.meta["reason"]:
            yield reject(reason, stage="segment", record=subject, reply=None, meta=meta)
            return
        try:
            # 2. Self-augmentation: write the instruction that the segment answers (2308.06259, section 2.2).
            if self.options.trained:
                prompt = plain_prompt(text)
            else:
                prompt = self.prompts[INSTRUCT].render(header=str(record.prompt), text=text)
            reply = await llm.chat("backward", prompt, sample=sample, parse=read_instruction, **INSTRUCTION_SAMPLING)
            subject["prompt"] = instruction = reply.value
            meta["backward"] = reply.model
            if reason := rejection_reason(instruction, text):
                yield reject(reason, stage="instruct", record=subject, reply=instruction, meta=meta)
                return

            # 3. Self-curation: the mean of several ratings decides (section 2.3).
            if self.options.threshold:
                prompt = self.prompts[RATE].render(prompt=instruction, response=text)
                samples = map(record.sample, range(self.options.samples))
                ratings = await gather_all(
                    llm.chat("judge", prompt, sample=n, parse=read_points, **RATING_SAMPLING) for n in samples
                )
                meta["ratings"] = [rating.value for rating in ratings]
                mean = fmean(meta["ratings"])
                meta["rating"] = round(mean, 4)
                if mean < self.options.threshold:
                    yield reject("low_rating", stage="rate", record=subject, reply=None, meta=meta)
                    return

            # 4. Rewrite the text into an answer (2408.04614).
            answer, thought = text, None
            if self.options.rewrite:
                prompt = self.prompts[REWRITE].render(prompt=instruction, response=text)
                rewritten = await llm.chat("teacher", prompt, sample=sample, **REWRITE_SAMPLING)
                answer, thought = unwrap_answer(rewritten.text), rewritten.reasoning
                meta |= {"text": text, "model": rewritten.model}
                if points_at_text(answer[:ANSWER_START]):
                    yield reject("mentions_text", stage="rewrite", record=subject, reply=answer, meta=meta)
                    return
            yield self.row(record, meta, instruction, answer, thought)
        except CallFailed as error:
            yield fail(error, record=subject, meta=meta)

    def row(self, record: Record, meta: Row, instruction: str, response: str, thought: str | None) -> Candidate:
        """Return the row, its prompt behind the system message that names the source of the answer."""
        prompt: Text = instruction
        if not self.options.untagged:
            tag = self.prompts[SEED if meta["op"] == "seed" else WEB].render().messages
            prompt = [*tag, {"role": "user", "content": instruction}]
        name = row_id(self.name, [record.id], record.pass_no, [instruction, response])
        texts = {"prompt": prompt, "response": response, **reasoning_field(thought)}
        return keep({"id": name, **texts, "meta": meta, **record.carried})

    def check(self) -> None:
        if self.options.reasoning == ONLY and not self.options.rewrite:
            raise InputError("--reasoning only needs --rewrite: nobody thought before the texts of a corpus")

    def bound(self, record: Record, llm: Roles) -> int:
        if record.meta.get("document") is None or record.meta["reason"]:
            return 0  # seeds are kept as they are, and a rule rejected the segment
        return 1 + (self.options.samples if self.options.threshold else 0) + self.options.rewrite


def read_instruction(text: str) -> str:
    """Read an instruction without what the model put around it (select/wrapping.py)."""
    instruction = unwrap(text).strip(QUOTES).strip()
    if not instruction or len(instruction) > MAX_INSTRUCTION:
        raise ParseError(f"an instruction of {len(instruction)} characters")
    return instruction


def read_points(text: str) -> float:
    """Read the points of the last line `Score: N`."""
    points = SCORE_LINE.findall(text)
    if not points or float(points[-1]) > POINTS:
        raise ParseError(f"no line 'Score: 0 to {POINTS}'")
    return float(points[-1])


def rejection_reason(instruction: str, text: str) -> str | None:
    """Return why an instruction cannot stand without its text, or None."""
    if points_at_text(instruction):
        return "mentions_text"
    words, all_words = tokens(instruction), " ".join(tokens(text))
    runs = (" ".join(words[start : start + COPIED_WORDS]) for start in range(len(words) - COPIED_WORDS + 1))
    return "copies_text" if any(run in all_words for run in runs) else None
