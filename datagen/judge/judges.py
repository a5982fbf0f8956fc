"""The models that judge one record's answers: which of them may judge, and how they are called.

A judge sees the answers under random labels, drawn anew for each call. An answer that contains a verdict cannot know
its own label, so it cannot smuggle a verdict into the judge's reply. Random labels also keep a judge from preferring
"A" only because it is called "A".
"""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from random import Random
from typing import Any

from datagen.errors import UNPARSED, CallFailed
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.records.record import Prompt, Record, Row, request_text
from datagen.verify import reference_answer

JUDGING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""MT-bench judges at temperature 0 (2306.05685)."""
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters of labels. Without vowels they spell no words."""


class Judges:
    """The models that judge the answers of one record.

    Args:
        record: A row with several responses.
        llm: The models by role; the role "judge" is used.
        allow_self: Whether a model may judge answers of its own family.
        panel: Whether all models judge everything; else they take turns.
    """

    def __init__(self, record: Record, llm: Roles, *, allow_self: bool = False, panel: bool = False) -> None:
        self.record, self.llm = record, llm
        self.allow_self, self.panel = allow_self, panel
        self.answers = record.responses
        self.request = request_text(record.prompt)
        reference = record.extra.get("reference")
        self.reference = reference if isinstance(reference, str) else reference_answer(record) or ""
        """The answer that is known to be right; empty if none is."""
        self.unread = 0
        """Replies that could not be read."""

    @cached_property
    def members(self) -> list[int]:
        """The places, in the role, of the models that judge this record: none of an author's family, unless allowed."""
        names = self.llm.identities("judge")
        authors = {family(str(answer["model"])) for answer in answer_metas(self.record) if answer.get("model")}
        fit = [at for at, name in enumerate(names) if self.allow_self or family(name) not in authors - {"sim"}]
        if self.panel or not fit:
            return fit
        return [fit[self.llm.turn("judge") % len(fit)]]

    async def ask(
        self, prompt: Prompt, member: int, parse: Callable[[str], Any], sample: int = 0, **params: Any
    ) -> Completion | None:
        """Ask one model.

        Args:
            prompt: The request.
            member: The model's place in the role.
            parse: Reads the reply; its result is `Completion.value`.
            sample: The number of the sample.
            params: Sampling parameters, in place of those of JUDGING.

        Returns:
            The reply; None if it cannot be read, which is counted in `unread`.

        Raises:
            CallFailed: There is no reply. The row fails; running the same command again retries it.
        """
        sample = self.record.sample(sample)
        try:
            return await self.llm.chat(
                "judge", prompt, sample=sample, parse=parse, member=member, **{**JUDGING, **params}
            )
        except CallFailed as error:
            if error.reason != UNPARSED:
                raise
            self.unread += 1
            return None


def answer_metas(record: Record) -> list[Row]:
    """Return the entries of `meta.responses`, one for each answer of a row: the model that wrote it, for example."""
    metas = record.meta.get("responses")
    return list(metas) if isinstance(metas, list) else [{"model": None} for _ in record.responses]


def family(identity: str) -> str:
    """Name the family of a model: the letters that its name begins with, without the folder before it."""
    name = identity.removeprefix("hf:").partition("/")[0] if identity.startswith("hf:") else identity.rpartition("/")[2]
    name = "sim" if identity.startswith("sim") else name
    letters = re.match(r"[a-z]+", name.casefold())
    return letters[0] if letters else name


def draw_labels(random: Random, answers: Sequence[str]) -> list[str]:
    """Draw a label for each answer, such as K7M: no two alike, none that occurs in an answer."""
    text = "\n".join(answers).upper()
    labels: list[str] = []
    while len(labels) < len(answers):
        label = f"{random.choice(LETTERS)}{random.randint(2, 9)}{random.choice(LETTERS)}"
        if label not in text and label not in labels:
            labels.append(label)
    return labels


def label_texts(labels: Sequence[str], texts: Sequence[str], noun: str = "Answer") -> str:
    """Write texts under their labels, as the prompts show them: `Answer K7M:`, then the text between <<< and >>>."""
    return "\n\n".join(f"{noun} {label}:\n<<<\n{text}\n>>>" for label, text in zip(labels, texts, strict=True))
