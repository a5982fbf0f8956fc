"""`datagen improve`: better answers to the same prompts, as responses or as preferences over the old ones.

    edit            better in one aspect: deeper, more relevant, ... (Deita, arXiv 2312.15685, section 2.3)
    critique        a critique, then a revision that follows it
    rewrite         the response is a text; write the answer that it holds (back-and-forth, arXiv 2408.04614)
    constitution    critique and revision under drawn principles, several times (Constitutional AI, arXiv 2212.08073)

A new answer is accepted only if the judge prefers it to the old one in both orders (judges/compare.py), it is not much
longer, and it does not change a result for the worse: without a signal from outside, models make as many answers
worse as better. Where it is not accepted the old answer stays, and `meta.kept_because` says why. `--pairs` writes
preferences, new over old, instead of responses; the calls are the same, so it costs nothing more.

Departures: Deita has one judge rank all versions; here each version meets the original, in both orders. Of its five
aspects (helpful, relevant, deeper, creative, concrete) and one of ours (clear) one is drawn, among those of `--aspect`;
all five are five commands one after another, each with its own acceptance.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.errors import CallFailed, InputError
from datagen.judges import compare
from datagen.judges.agreement import judge_key, read_checks
from datagen.judges.compare import COMPARE, Compare
from datagen.judges.judges import REMINDER, Judges, first_equals, impartial, partial_judge
from datagen.judges.preferences import PreferenceTable
from datagen.judges.replies import FIRST, SECOND
from datagen.judges.summary import OrderCounts, percent
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, Row, fail, keep, reasoning_field, reject, request_text, row_id
from datagen.select.wrapping import unwrap_answer
from datagen.verify import reference_answer
from datagen.verify.answers import final_answer
from datagen.verify.equality import same_answer
from datagen.verify.languages import is_chinese

UNJUDGED = "unjudged edits"
ASPECTS = ("deeper", "relevant", "concrete", "creative", "helpful", "clear")
EDIT_TEMPLATES = ("improve/edit", *(f"aspects/{name}" for name in ASPECTS))
LANGUAGES = {"en": "", "zh": ".zh"}
"""Each language of the templates of `edit`, and what ends their names."""
SAMPLING: dict[str, Any] = {"max_tokens": 2048}
MOST_GROWTH = 1.5
"""The most that a new answer may be longer, as a ratio; our choice: length is the cheapest way to please a judge."""
SLACK = 200
"""Characters that it may be longer in any case: two better sentences in a short answer are no verbosity."""
REVISIONS = 4
"""Constitutional AI, section 3.1."""
PRINCIPLE = "Judge how well the answer serves the request: is it right, complete, clear, and no longer than needed?"


@dataclass(frozen=True)
class Options:
    """Options of `datagen improve`."""

    most_growth: float = option(MOST_GROWTH, "Maximum ratio of the new answer's length to the old one's.", least=1)
    pairs: bool = option(False, "Write preference pairs (chosen: new, rejected: old) instead of responses.")
    only_better: bool = option(False, "Drop the rows whose answer did not improve.")
    allow_self: bool = option(False, "Allow a model to judge its own answers and those of its model family.")
    rubric: list[str] = option(["helpful"], "Rubric of the judge, as in 'datagen judge'. Repeatable.", file=True)
    revisions: int = option(REVISIONS, "constitution: number of revisions of each answer.", least=1, most=16)
    reasoning: str = reasoning_option()


@dataclass
class ImproveTable(Table):
    """What became of the new answers, and how far the judge's verdicts can be used."""

    outcomes: Counter[str] = field(default_factory=lambda: Counter(accepted=0, unjudged=0))
    orders: OrderCounts = field(default_factory=OrderCounts)
    preferences: PreferenceTable | None = None
    """With `--pairs`."""

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        if self.preferences:
            self.preferences.add(candidate)
        if candidate.status == "kept" or meta["kept_because"]:
            self.outcomes["accepted" if meta["accepted"] else meta["kept_because"]] += 1
            self.orders.add(meta["orders"])

    def warnings(self) -> list[str]:
        return self.orders.warnings()

    def as_dict(self) -> dict[str, Any]:
        outcomes = dict(sorted(self.outcomes.items()))
        preferences = self.preferences.as_dict() if self.preferences else {}
        return {"new_answers": outcomes, "unread": self.orders.unread, **self.orders.as_dict(), **preferences}

    def tables(self) -> list[list[list[str]]]:
        if not self.outcomes.total():
            return []
        shares = self.orders.as_dict()
        outcomes = [
            ["new answers", str(self.outcomes.total())],
            *([name, str(number)] for name, number in sorted(self.outcomes.items())),
            ["replies unread", str(self.orders.unread)],
            ["both orders agree", percent(shares["both_orders_agree"])],
            ["verdicts for the answer shown first", percent(shares["first_shown_preferred"])],
        ]
        return [outcomes, *(self.preferences.tables() if self.preferences else [])]


class Improve(Method):
    """Write a new answer, and accept it only if it is better. A subclass defines how it is written."""

    name = "improve"
    options_type = Options
    options: Options
    unique = ("prompt", "response", "chosen")
    reasons = {
        "no_response": "The row has no response to improve. Answer the prompts first: datagen respond.",
        "no_impartial_judge": "Every judge is of the model family of an answer. Name another --judge, or --allow-self.",
        "unchanged": "The new answer is the old one, but for white space.",
        "much_longer": "The new answer is longer than --most-growth allows.",
        "answer_changed": "The new answer ends in another result, and which is right is not known.",
        "flipped": "The old answer was right, and the new one is not known to be.",
        "worse": "The judge prefers the old answer in both orders.",
        "no_better": "The judge does not prefer the new answer in both orders.",
        "unjudged": "The judge's replies could not be read in both orders.",
    }
    asks = {UNJUDGED: "The judge does not answer in the form that is asked for: name another --judge."}
    roles = {"teacher": "writes the new answers", "judge": "compares the new answer with the old one"}
    judges_input = True
    calls_per_rewrite: ClassVar[int] = 1
    """The most calls of `rewrite`."""

    def conflict(self, record: Record, llm: Roles) -> str | None:
        authors = [*llm.identities("teacher"), *filter(None, [record.meta.get("model")])]
        judges = llm.identities("judge")
        fit = impartial(judges, authors, allow_self=self.options.allow_self)
        return None if fit else partial_judge(judges)

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield one row: the new answer if it is accepted, else the old one; with `--pairs` new over old."""
        old, pairs = record.response, self.options.pairs
        meta = self.row_meta(
            record,
            details={"aspect": None},
            model=None,
            judges=llm.identities("judge"),
            judging=None,
            steps=[],
            original=old,
            length_ratio=0.0,
            orders=[],
            accepted=False,
            kept_because=None,
        )
        if old is None or self.conflict(record, llm):
            problem = "no_response" if old is None else "no_impartial_judge"
            yield reject(problem, stage="read", record=record.row, reply=None, meta=meta)
            return
        try:
            # 1. Write a new answer, and apply the rules that need no judge.
            rewritten = await self.rewrite(record, old, llm, meta)
            new = rewritten.text
            reason = rejection_reason(record, old, new, self.options)

            # 2. Have the judge compare old and new in both orders, without saying which is which.
            if reason is None:
                authors = [{"model": record.meta.get("model")}, {"model": meta["model"]}]
                answers = replace(record, responses=(old, new), meta={"responses": authors})
                judges = Judges(answers, llm, allow_self=self.options.allow_self)
                names = [meta["judges"][member] for member in judges.members]
                meta["judging"] = judge_key(names, Compare.variant, self.judge.judging_digest)
                comparison = await self.judge.compare(judges, 0, 1)
                meta["orders"] = [list(shares) for shares in comparison.orders]
                if comparison.share is None:
                    reason = "unjudged"
                else:
                    reason = {SECOND: None, FIRST: "worse"}.get(comparison.share, "no_better")
        except CallFailed as error:
            yield fail(error, record=record.row, meta=meta)
            return

        # 3. Keep the better answer, or both as a preference.
        meta |= {"accepted": reason is None, "kept_because": reason}
        verdict = UNJUDGED, int(bool(meta["orders"])), int(reason == "unjudged")
        if reason and (pairs or self.options.only_better):
            yield ask(reject(reason, stage=self.variant, record=record.row, reply=new, meta=meta), *verdict)
            return
        response = old if reason else new
        answer: Row = {"response": response}
        answer |= record.beside_response if reason else reasoning_field(rewritten.reasoning)
        if pairs:
            answer = {"chosen": new, "rejected": old, "margin": None}
            answer |= reasoning_field(rewritten.reasoning, "chosen_reasoning")
            answer |= reasoning_field(record.reasoning, "rejected_reasoning")
        content = [record.prompt, new, old] if pairs else [record.prompt, response]
        name = row_id(f"improve {self.variant}{' pair' if pairs else ''}", [record.id], record.pass_no, content)
        yield ask(keep({"id": name, "prompt": record.prompt, **answer, "meta": meta, **record.carried}), *verdict)

    @cached_property
    def judge(self) -> Compare:
        """The method that compares old and new answers."""
        options = compare.Options(rubric=self.options.rubric, allow_self=self.options.allow_self)
        return Compare(options, self.prompts)

    async def rewrite(self, record: Record, old: str, llm: Roles, meta: Row) -> Completion:
        """Return a new answer, written with `write`; by default from the first template and the old answer alone."""
        return await self.write(record, llm, meta, self.templates[0], response=old)

    async def write(
        self, record: Record, llm: Roles, meta: Row, template: str, number: int = 0, **fields: str
    ) -> Completion:
        """Have the teacher fill in a template about the prompt; add its text to `meta.steps`."""
        prompt = self.prompts[template].render(prompt=request_text(record.prompt), **fields)
        reply = await llm.chat("teacher", prompt, sample=record.sample(number), **SAMPLING)
        reply.text = text = unwrap_answer(reply.text, record.response or "")
        meta["steps"].append({"template": template, "text": text, "model": reply.model})
        meta |= {"model": reply.model, "length_ratio": round(len(text) / max(len(record.response or ""), 1), 3)}
        return reply

    def identity(self) -> dict[str, Any]:
        return self.judge.identity()

    def table(self) -> ImproveTable:
        return ImproveTable(preferences=PreferenceTable(read_checks()) if self.options.pairs else None)

    def bound(self, record: Record, llm: Roles) -> int:
        return self.calls_per_rewrite + 2  # it is compared in both orders


@dataclass(frozen=True)
class EditOptions(Options):
    """Options of `datagen improve --by edit`."""

    aspect: list[str] = option(
        [], f"edit: what to improve: {', '.join(ASPECTS)}. Repeatable; one is drawn for each answer. [all]"
    )
    lang: str = option("auto", "edit: language of the prompt templates: en, zh, or auto (that of the prompt).")


class ImproveEdit(Improve):
    """Write the answer again, better in one drawn aspect (Deita)."""

    variant = "edit"
    options_type = EditOptions
    options: EditOptions
    templates = (*(f"{name}{end}" for end in LANGUAGES.values() for name in EDIT_TEMPLATES), COMPARE, REMINDER)
    row_templates = (COMPARE, REMINDER)

    async def rewrite(self, record: Record, old: str, llm: Roles, meta: Row) -> Completion:
        language, name = self.language(record), record.random("aspect").choice(self.options.aspect or ASPECTS)
        template, aspect = f"improve/edit{language}", f"aspects/{name}{language}"
        meta |= {"aspect": name, "templates": self.name_templates((template, aspect, COMPARE, REMINDER))}
        (sentence,) = self.prompts[aspect].render().messages
        return await self.write(record, llm, meta, template, aspect=sentence["content"], response=old)

    def language(self, record: Record) -> str:
        """Return what ends the names of the templates for a record."""
        lang = self.options.lang
        if lang == "auto":
            lang = "zh" if is_chinese(request_text(record.prompt)) else "en"
        return LANGUAGES[lang]

    def check(self) -> None:
        super().check()
        if unknown := [name for name in self.options.aspect if name not in ASPECTS]:
            raise InputError(f"--aspect {unknown[0]}: expected {', '.join(ASPECTS)}")
        if self.options.lang not in ("auto", *LANGUAGES):
            raise InputError(f"--lang {self.options.lang}: expected auto, {', '.join(LANGUAGES)}")


class ImproveRewrite(Improve):
    """Make a good answer out of a text (back-and-forth translation)."""

    variant = "rewrite"
    templates = ("improve/rewrite", COMPARE, REMINDER)


class ImproveCritique(Improve):
    """Criticise the answer, then revise it."""

    variant = "critique"
    templates: ClassVar[tuple[str, ...]] = ("improve/critique", "improve/revise", COMPARE, REMINDER)
    calls_per_rewrite = 2

    async def rewrite(self, record: Record, old: str, llm: Roles, meta: Row) -> Completion:
        """Criticise and revise the answer, then the revision, once for each principle."""
        text = old
        for number, principle in enumerate(self.principles(record)):
            fields = {"principle": principle, "response": text}
            critique = await self.write(record, llm, meta, "improve/critique", number, **fields)
            fields = {"critique": critique.text, "response": text}
            revision = await self.write(record, llm, meta, "improve/revise", number, **fields)
            text = revision.text
        return revision

    def principles(self, record: Record) -> list[str]:
        """Return the principles of the critiques, one for each revision."""
        return [PRINCIPLE]


class ImproveConstitution(ImproveCritique):
    """Criticise and revise under one drawn principle after another (Constitutional AI, section 3.1)."""

    variant = "constitution"
    templates = ("improve/critique", "improve/revise", "constitution/principles", COMPARE, REMINDER)

    def principles(self, record: Record) -> list[str]:
        texts = [message["content"] for message in self.prompts["constitution/principles"].render().messages]
        draws = range(self.options.revisions)
        return [record.random(f"constitution/principles {number}").choice(texts) for number in draws]

    def bound(self, record: Record, llm: Roles) -> int:
        return 2 * self.options.revisions + 2


def rejection_reason(record: Record, old: str, new: str, options: Options) -> str | None:
    """Return why a new answer is rejected without a judge, or None."""
    if first_equals([old, new]) == [0, 0]:
        return "unchanged"
    if len(new) > options.most_growth * len(old) + SLACK:
        return "much_longer"
    before, after, reference = final_answer(old), final_answer(new), reference_answer(replace(record, response=None))
    if reference is not None:
        return "flipped" if same_answer(before, reference) and not same_answer(after, reference) else None
    return "answer_changed" if before is not None and same_answer(before, after) is not True else None
