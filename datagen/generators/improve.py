"""`datagen improve`: better answers to the same prompts, and each better one a preference.

    edit            one respect at a time: deeper, more relevant, ... (Deita, arXiv 2312.15685, section 2.3)
    critique        a critique, then a revision that takes it up
    rewrite         the response is a text; write the answer that it holds (back-and-forth, arXiv 2408.04614)
    constitution    critique and revision under drawn principles, several times (Constitutional AI, arXiv 2212.08073)

A new answer is accepted only if the judge prefers it to the old one in both orders (judge/compare.py), it is not much
longer, and it does not change a result for the worse: without a signal from outside, models make as many answers
worse as better. Where it is not accepted the old answer stays, and `meta.kept_because` says why. `--pairs` writes
preferences, new over old, in place of responses; the calls are the same, so that costs nothing more.

Departures: Deita has one judge rank all versions; here each version meets the original, in both orders.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datagen.engine.method import Memory, Method, Unique
from datagen.engine.options import option
from datagen.errors import CallFailed, InputError
from datagen.judge.compare import COMPARE, Comparison, compare
from datagen.judge.judging import ByRubric, Judging, rubric_identity
from datagen.judge.verdicts import FIRST, SECOND
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.record import Candidate, Record, Row, fail, keep, reject, request_text, row_id
from datagen.verify import reference_answer
from datagen.verify.answers import final_answer, same_answer

ASPECTS = ("deeper", "relevant", "concrete", "creative", "helpful", "clear")
SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 2048}
MOST_GROWTH = 1.5
"""How many times as long a new answer may be; our choice: longer is the cheapest way to please a judge."""
SLACK = 200
"""Characters that it may be longer anyway: two sentences mended in a short answer are no verbosity."""
REVISIONS = 4
"""Constitutional AI, section 3.1."""
ROLES = {"teacher": "writes the new answers", "judge": "compares new and old"}


@dataclass(frozen=True)
class Options(ByRubric):
    """What improving can be told."""

    most_growth: float = option(MOST_GROWTH, "How many times as long a new answer may be.", least=1)
    pairs: bool = option(False, "Write preferences, new over old, in place of responses.")
    only_better: bool = option(False, "Drop the rows whose answer did not get better.")
    allow_self: bool = option(False, "Let a model judge its own answers, and those of its family.")
    rubric: list[str] = option(["helpful"], "What the judge goes by; see 'datagen judge'.")
    revisions: int = option(REVISIONS, "constitution: how often an answer is revised.", least=1, most=16)

    @property
    def panel(self) -> bool:
        return False

    @property
    def logprobs(self) -> bool:
        return False


@dataclass
class Improving:
    """One response on its way to a better one."""

    record: Record
    llm: Roles
    prompts: Prompts
    options: Options
    way: str
    steps: list[Row] = field(default_factory=list)
    """Everything that was written on the way."""
    aspect: str | None = None

    @property
    def old(self) -> str:
        return self.record.response or ""

    async def write(self, template: str, number: int = 0, **fields: str) -> Completion:
        """Have something written about the prompt and a response; keep it as a step."""
        prompt = self.prompts[template].render(prompt=request_text(self.record.prompt), **fields)
        said = await self.llm.chat("teacher", prompt, sample=self.record.sample(number), **SAMPLING)
        self.steps.append({"template": template, "text": said.text.strip(), "model": said.model})
        return said

    def draw(self, name: str, number: int = 0) -> str:
        """Draw one of the texts of a template with many parts."""
        parts = self.prompts[name].render().messages
        return self.record.random(f"{name} {number}").choice(parts)["content"]


async def edit(work: Improving) -> str:
    """Write the answer again, better in one drawn respect."""
    work.aspect = work.record.random("aspect").choice(ASPECTS)
    (told,) = work.prompts[f"aspects/{work.aspect}"].render().messages
    return (await work.write("improve/edit", aspect=told["content"], response=work.old)).text


async def critique(work: Improving) -> str:
    """Have the answer criticised, then revised."""
    principle = "Judge how well the answer serves the request: is it right, complete, clear, and no longer than needed?"
    return await _revised(work, work.old, principle, 0)


async def rewrite(work: Improving) -> str:
    """Have a good answer made of the text."""
    return (await work.write("improve/rewrite", response=work.old)).text


async def constitution(work: Improving) -> str:
    """Criticise and revise under one drawn principle after another."""
    text = work.old
    for number in range(work.options.revisions):
        text = await _revised(work, text, work.draw("constitution/principles", number), number)
    return text


async def _revised(work: Improving, text: str, principle: str, number: int) -> str:
    said = await work.write("improve/critique", number, principle=principle, response=text)
    return (await work.write("improve/revise", number, response=text, critique=said.text.strip())).text.strip()


WAYS: dict[str, Callable[[Improving], Awaitable[str]]] = {
    "edit": edit,
    "critique": critique,
    "rewrite": rewrite,
    "constitution": constitution,
}


def make(way: str) -> Any:
    """Return the generator of one way."""

    async def improve(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
        work = Improving(record, llm, prompts, options, way)
        try:
            yield await attempt(work)
        except CallFailed as error:
            yield fail(error, record=_about(record), meta=meta_of(work, None, None))

    return improve


async def attempt(work: Improving) -> Candidate:
    """Write a new answer, and decide between it and the old one."""
    record = work.record
    if record.response is None:
        return reject("no_response", stage="read", record=_about(record), reply=None, meta=meta_of(work, None, None))
    new = (await WAYS[work.way](work)).strip()
    reason = fault(record, work.old, new, work.options)
    comparison = None if reason else await judged(work, new)
    reason = reason or verdict(comparison)
    meta = meta_of(work, comparison, reason)
    if reason and (work.options.pairs or work.options.only_better):
        return reject(reason, stage=work.way, record=_about(record), reply=new, meta=meta)
    return as_pair(record, work.way, new, meta) if work.options.pairs else as_row(record, work.way, new, reason, meta)


def fault(record: Record, old: str, new: str, options: Options) -> str | None:
    """Say why a new answer is out of the question without a judge."""
    if new == old.strip():
        return "unchanged"
    if len(new) > options.most_growth * len(old) + SLACK:
        return "much_longer"
    before, after, truth = final_answer(old), final_answer(new), reference_answer(replace(record, response=None))
    if truth is not None:
        return "flipped" if same_answer(before, truth) and not same_answer(after, truth) else None
    return "answer_changed" if before is not None and same_answer(before, after) is not True else None


async def judged(work: Improving, new: str) -> Comparison:
    """Have old and new compared; neither is told apart for the judge."""
    record = work.record
    written_by = [{"model": record.meta.get("model")}, {"model": work.steps[-1]["model"]}]
    both = replace(record, responses=(work.old, new), meta={"responses": written_by})
    judging = Judging(both, work.llm, work.prompts, "compare", work.options)
    if not judging.judges:
        raise InputError(
            f"the judge is of the family of {written_by[1]['model']}, whose answer it would judge: name another with "
            "--judge, or add --allow-self"
        )
    return await compare(judging, 0, 1)


def verdict(comparison: Comparison | None) -> str | None:
    """Say why the new answer is not accepted: the old one is better, they tie, or nobody could tell."""
    if comparison is None or comparison.share is None:
        return "unjudged"
    return {SECOND: None, FIRST: "worse"}.get(comparison.share, "no_better")


def meta_of(work: Improving, comparison: Comparison | None, reason: str | None) -> Row:
    record, new = work.record, work.steps[-1] if work.steps else {"text": None, "model": None}
    return {
        "method": "improve",
        "op": work.way,
        "aspect": work.aspect,
        "pass": record.pass_no,
        **record.lineage,
        "model": new["model"],
        "judges": work.llm.identities("judge"),
        "steps": work.steps,
        "original": record.response,
        "length_ratio": round(len(new["text"] or "") / max(len(work.old), 1), 3),
        "orders": [[each.forward, each.backward] for each in comparison.verdicts] if comparison else [],
        "accepted": comparison is not None and reason is None,
        "kept_because": reason,
    }


def as_row(record: Record, way: str, new: str, reason: str | None, meta: Row) -> Candidate:
    """Make the row: the new answer, or the old one if the new is not accepted."""
    response = record.response if reason else new
    name = row_id(f"improve {way}", [record.id], record.pass_no, [record.prompt, response])
    return keep({"id": name, "prompt": record.prompt, "response": response, "meta": meta, **record.extra})


def as_pair(record: Record, way: str, new: str, meta: Row) -> Candidate:
    """Make the preference: new over old."""
    name = row_id(f"improve {way} pair", [record.id], record.pass_no, [record.prompt, new, record.response])
    row = {
        "id": name,
        "prompt": record.prompt,
        "chosen": new,
        "rejected": record.response,
        "margin": None,
        "meta": meta,
    }
    return keep(row | record.extra)


def _about(record: Record) -> Row:
    return {"id": record.id, "prompt": record.prompt, "response": record.response}


TEMPLATES = {
    "edit": ("improve/edit", *(f"aspects/{name}" for name in ASPECTS)),
    "critique": ("improve/critique", "improve/revise"),
    "rewrite": ("improve/rewrite",),
    "constitution": ("improve/critique", "improve/revise", "constitution/principles"),
}
WRITING = {"edit": 1, "critique": 2, "rewrite": 1}
"""Calls to write a new answer; two for each revision under a constitution."""


class Improve(Method):
    """Write the answer again, better in one drawn respect (Deita)."""

    name, variant = "improve", "edit"
    options_type = Options
    options: Options
    roles = ROLES
    templates = (*TEMPLATES["edit"], COMPARE)

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        generate: AsyncIterator[Candidate] = make(self.variant)(record, llm, self.prompts, self.options)
        return generate

    def identity(self) -> dict[str, Any]:
        return rubric_identity(self.options.rubric, self.prompts)

    def bound(self, record: Record) -> int:
        return WRITING.get(self.variant, 2 * self.options.revisions) + 2

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "response", "chosen")]

    def next_command(self) -> str:
        return f"datagen train {'dpo' if self.options.pairs else 'sft'} {{}}"


class ImproveCritique(Improve):
    """Have the answer criticised, then revised."""

    variant = "critique"
    templates = (*TEMPLATES["critique"], COMPARE)


class ImproveRewrite(Improve):
    """Have a good answer made of the text."""

    variant = "rewrite"
    templates = (*TEMPLATES["rewrite"], COMPARE)


class ImproveConstitution(Improve):
    """Criticise and revise under one drawn principle after another (Constitutional AI)."""

    variant = "constitution"
    templates = (*TEMPLATES["constitution"], COMPARE)
