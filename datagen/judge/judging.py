"""What the ways to judge share: who judges, what is shown, and the ranked row that comes of it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from datagen.engine.options import option
from datagen.errors import CallFailed, InputError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts, Template, read_template
from datagen.records.ranked import dense_ranks
from datagen.records.record import (
    ID_LENGTH,
    Candidate,
    Record,
    Row,
    digest,
    fail,
    keep,
    reject,
    request_text,
    row_id,
)
from datagen.verify import reference_answer

JUDGING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""MT-bench judges at temperature 0 (2306.05685)."""
UNREAD = "unparsed answer"
"""Why a call failed whose reply holds no verdict: it leaves one comparison undecided, where another failure leaves the
row to be asked for again."""
ROLES = {"judge": "judges the answers"}
DIGITS = 4
"""Decimals of a score."""


def rubric_option() -> Any:
    known = "helpful, honest, harmless, relevance, consistency, creativity"
    return option(["helpful"], f"What to judge by: {known}, or a file NAME.md. Repeat it for more.")


class ByRubric:
    """Options with rubrics, which are told by what stands in them."""

    rubric: list[str]


def rubric_identity(names: list[str], prompts: Prompts) -> dict[str, Any]:
    """Return what the fingerprint says of rubrics: each with the digest of its text."""
    return {"rubric": {name: load_rubric(prompts, name).digest for name in names}}


def panel_option() -> Any:
    return option(False, "Every --judge judges everything, and their verdicts are combined; else they take turns.")


def allow_self_option() -> Any:
    return option(False, "Let a model judge its own answers, and those of its family.")


def logprobs_option() -> Any:
    return option(False, "Ask for the probabilities of what a judge says: expected points, soft labels.")


def check_option() -> Any:
    return option(False, "The rows hold people's own ranks or choices: measure how far the judge agrees with them.")


@dataclass
class Judging:
    """One record's answers before their judges."""

    record: Record
    llm: Roles
    prompts: Prompts
    way: str
    options: Any
    unread: int = 0
    """Verdicts that could not be read."""
    extra: Row = field(default_factory=dict)
    """What a way adds to `meta`: the same keys in every row."""
    told: list[Row] = field(default_factory=list)
    """What a way adds to what is known of each answer."""
    templates: tuple[str, ...] = ()
    """What the judge is asked with."""
    comparisons: list[Any] = field(default_factory=list)
    """Comparisons of answers, by their places in the input."""

    @property
    def checks(self) -> bool:
        """Are the ranks of the row people's, for the judge to be measured by?"""
        return bool(getattr(self.options, "check", False))

    @property
    def answers(self) -> tuple[str, ...]:
        return self.record.responses

    @cached_property
    def judges(self) -> list[int]:
        """The members of the role that may judge: none that is of the family of an author, unless told."""
        names = self.llm.identities("judge")
        authors = {family(str(about["model"])) for about in self.about if about.get("model")}
        fit = [at for at, name in enumerate(names) if self.options.allow_self or family(name) not in authors - {"sim"}]
        if self.options.panel or not fit:
            return fit
        return [fit[self.llm.turn("judge") % len(fit)]]

    @property
    def about(self) -> list[Row]:
        """What is known of each answer."""
        return what_is_known(self.record)

    @property
    def reference(self) -> str:
        """The answer that is known to be right, if one is."""
        given = self.record.extra.get("reference")
        return given if isinstance(given, str) else reference_answer(self.record) or ""

    @property
    def request(self) -> str:
        return request_text(self.record.prompt)

    @property
    def criteria(self) -> str:
        """All statements of the rubrics, in one line."""
        return criteria(self.rubrics.values())

    @cached_property
    def asked_with(self) -> str:
        """Name the prompts and the rubrics; a check of a judge holds for these alone."""
        return asked_with(self.prompts, self.way, self.templates, self.rubrics.values())

    @cached_property
    def rubrics(self) -> dict[str, Template]:
        return {Path(name).stem: load_rubric(self.prompts, name) for name in self.options.rubric}

    async def ask(self, prompt: Any, member: int, parse: Callable[[str], Any], sample: int = 0, **more: Any) -> Any:
        """Ask a judge; None if what it says cannot be read."""
        try:
            said: Completion = await self.llm.chat(
                "judge", prompt, sample=self.record.sample(sample), parse=parse, member=member, **{**JUDGING, **more}
            )
        except CallFailed as error:
            if error.reason != UNREAD:
                raise
            self.unread += 1
            return None
        return said

    def ranked(self, scores: Sequence[float | None], ranks: Sequence[int] | None = None) -> Candidate:
        """Make the ranked row."""
        return ranked_row(self.record, self.way, scores, self.meta, ranks)

    def meta(self, order: Sequence[int] = ()) -> Row:
        """Tell how the row came about; answers and comparisons as they are ordered in it."""
        names, about = self.llm.identities("judge"), self.about
        known = [row | more for row, more in zip(about, self.told or [{} for _ in about], strict=True)]
        return {
            "method": "judge",
            "op": self.way,
            "pass": self.record.pass_no,
            **self.record.lineage,
            "judges": [names[at] for at in self.judges],
            "rubrics": {name: template.digest for name, template in self.rubrics.items()},
            "judging": self.asked_with,
            "labels": [self.record.ranks[at] for at in order] if self.checks else None,
            "unread": self.unread,
            **self.extra,
            "comparisons": [each.as_meta([order.index(at) for at in range(len(order))]) for each in self.comparisons],
            "responses": [known[at] for at in order or range(len(known))],
        }

    def rejected(self, reason: str) -> Candidate:
        return reject(reason, stage=self.way, record=self._record(), reply=None, meta=self.meta())

    def failed(self, error: CallFailed) -> Candidate:
        return fail(error, record=self._record(), meta=self.meta())

    def _record(self) -> Row:
        return {"id": self.record.id, "prompt": self.record.prompt, "responses": list(self.answers)}

    async def concluded(self, judge: "Callable[[], Any]") -> Candidate:
        """Judge, unless there is nothing to judge or nobody to do it."""
        if len(self.answers) < 2 and self.way != "score":
            return self.rejected("one_answer")
        if not self.judges:
            return self.rejected("no_impartial_judge")
        if self.checks and not self.record.ranks:
            return self.rejected("no_label")
        try:
            made: Candidate = await judge()
        except CallFailed as error:
            return self.failed(error)
        return made


def criteria(rubrics: Iterable[Template]) -> str:
    return " ".join(" ".join(statements(each)) for each in rubrics)


def asked_with(prompts: Prompts, way: str, templates: Sequence[str], rubrics: Iterable[Template]) -> str:
    """Name a way to judge by its prompts and its rubrics."""
    return digest([way, [prompts[name].digest for name in templates], criteria(rubrics)])[:ID_LENGTH]


def what_is_known(record: Record) -> list[Row]:
    """Return what an earlier command told of each answer."""
    told = record.meta.get("responses")
    return list(told) if isinstance(told, list) else [{"model": None} for _ in record.responses]


def ranked_row(
    record: Record,
    way: str,
    scores: Sequence[float | None],
    meta: Callable[[Sequence[int]], Row],
    ranks: Sequence[int] | None = None,
) -> Candidate:
    """Make the ranked row of a record: the best answer first, equal scores a tie; what has no score comes last.

    `meta` tells about the answers in the order that it is given, a list of their places in the input.
    """
    rounded = [None if score is None else round(score, DIGITS) for score in scores]
    told = list(ranks or dense_ranks(rounded))
    order = sorted(range(len(told)), key=lambda at: (told[at], at))
    row = {
        "prompt": record.prompt,
        "responses": [record.responses[at] for at in order],
        "scores": [rounded[at] for at in order],
        "ranks": [told[at] for at in order],
    }
    name = row_id(f"judge {way}", [record.id], record.pass_no, [row["responses"], row["scores"]])
    return keep({"id": name, **row, "meta": meta(order), **record.extra})


def load_rubric(prompts: Prompts, name: str) -> Template:
    """Return a rubric by its name, or from a file of the user's."""
    path = Path(name)
    if path.suffix == ".md" and path.is_file():
        return read_template(path.stem, path)
    try:
        return prompts[f"rubrics/{name}"]
    except FileNotFoundError:
        raise InputError(f"--rubric {name}: no such rubric, and no file NAME.md") from None


def statements(rubric: Template) -> list[str]:
    """Return the statements of a rubric: one point for each that is true of an answer."""
    return [line for message in rubric.render().messages for line in message["content"].splitlines() if line.strip()]


def family(identity: str) -> str:
    """Name the family of a model: the letters that its name begins with, without the folder before it."""
    name = identity.removeprefix("hf:").partition("/")[0] if identity.startswith("hf:") else identity.rpartition("/")[2]
    name = "sim" if identity.startswith("sim") else name
    found = re.match(r"[a-z]+", name.casefold())
    return found[0] if found else name


def shown_answers(labels: Sequence[str], answers: Sequence[str]) -> str:
    """Show answers under their labels."""
    return "\n\n".join(f"Answer {label}:\n<<<\n{answer}\n>>>" for label, answer in zip(labels, answers, strict=True))
