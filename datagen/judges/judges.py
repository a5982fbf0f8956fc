"""The models that judge one record's answers: which of them may judge, and how they are called.

A judge sees the answers under random labels, drawn anew for each call. An answer that contains a verdict cannot know
its own label, so it cannot smuggle a verdict into the judge's reply. Random labels also keep a judge from preferring
"A" only because it is called "A".
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from random import Random
from typing import Any, TypeVar

from datagen.engine.unobtained import ask
from datagen.errors import UNPARSED, CallFailed
from datagen.judges.vendors import families
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Prompt, Record, Row, request_text
from datagen.verify import reference_answer

REMINDER = "judge/reminder"
JUDGING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""MT-bench judges at temperature 0 (2306.05685)."""
UNREAD, NO_PROBABILITIES = "unread replies", "replies without probabilities"
ASKS = {
    UNREAD: "The judge does not answer in the form that is asked for: name another --judge.",
    NO_PROBABILITIES: "The server of the judge sends no log-probabilities: leave out --logprobs, or name another "
    "--judge.",
}
"""What is asked of a judge (`Method.asks`)."""
Value = TypeVar("Value")
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
        self.replies = Counter(dict.fromkeys(ASKS, 0))
        """Replies that were asked for in some way, by the names of ASKS."""
        self.missing = Counter[str]()
        """Those of them that cannot be used."""
        self.unread_reply: str | None = None
        """The last of these."""

    @cached_property
    def members(self) -> list[int]:
        """The places, in the role, of the models that judge this record: none of an author's family, unless allowed."""
        authors = [str(answer["model"]) for answer in answer_metas(self.record) if answer.get("model")]
        fit = impartial(self.llm.identities("judge"), authors, allow_self=self.allow_self)
        if self.panel or not fit:
            return fit
        return [fit[self.llm.turn("judge") % len(fit)]]

    @property
    def unread(self) -> int:
        """Replies that cannot be used."""
        return self.missing.total()

    async def ask(
        self,
        prompt: Prompt,
        member: int,
        parse: Callable[[str], Any],
        sample: int = 0,
        *,
        reminder: Prompt,
        **params: Any,
    ) -> Completion | None:
        """Ask one model.

        Args:
            prompt: The request.
            member: The model's place in the role.
            parse: Reads the reply; its result is `Completion.value`.
            sample: The number of the sample.
            reminder: What is said to a judge of temperature 0 whose reply cannot be read (REMINDER).
            params: `schema` of the reply, and sampling parameters in place of those of JUDGING.

        Returns:
            The reply; None if it cannot be read, which is counted in `unread`.

        Raises:
            CallFailed: There is no reply. The row fails; running the same command again retries it.
        """
        sample = self.record.sample(sample)
        try:
            completion = await self.llm.chat(
                "judge", prompt, sample=sample, parse=parse, member=member, reminder=reminder, **{**JUDGING, **params}
            )
        except CallFailed as error:
            if error.reason != UNPARSED:
                raise
            self._count(UNREAD, error.reply)
            return None
        self._count(UNREAD)
        return completion

    def probable(self, completion: Completion, value: Value | None) -> Value | None:
        """Return what was worked out from the log-probabilities of a reply; None, which it is without them, is
        counted in `unread`."""
        self._count(NO_PROBABILITIES, completion.text if value is None else None)
        return value

    def _count(self, name: str, unusable: str | None = None) -> None:
        """Count a reply; `unusable` is its text if it cannot be used."""
        self.replies[name] += 1
        if unusable is not None:
            self.missing[name] += 1
            self.unread_reply = unusable

    def note_replies(self, candidate: Candidate) -> Candidate:
        """Note on a candidate how many replies were asked for, and how many cannot be used; return it."""
        for name, total in self.replies.items():
            ask(candidate, name, total, self.missing[name])
        return candidate


def answer_metas(record: Record) -> list[Row]:
    """Return the entries of `meta.responses`, one for each answer of a row: the model that wrote it, for example."""
    metas = record.meta.get("responses")
    if isinstance(metas, list) and len(metas) == len(record.responses):
        return metas
    return [{"model": None} for _ in record.responses]  # nothing is known of them, or the row was edited


def impartial(judges: Sequence[str], authors: Iterable[str], *, allow_self: bool) -> list[int]:
    """Return the places of the judges that are of no author's family; `sim` may judge itself, since it checks."""
    known = frozenset[str]().union(*map(families, authors)) - {"sim"}
    return [at for at, judge in enumerate(judges) if allow_self or not families(judge) & known]


def partial_judge(judges: Iterable[str]) -> str:
    """Say that all judges are of an author's family, and what to do."""
    return (
        f"the judge ({', '.join(judges)}) would judge answers of its own model family: name another one with --judge, "
        "or add --allow-self"
    )


def first_equals(answers: Sequence[str]) -> list[int]:
    """Return, for each answer, the place of the first one with the same words and signs; white space tells no two
    apart."""
    first: dict[str, int] = {}
    return [first.setdefault(" ".join(answer.split()), place) for place, answer in enumerate(answers)]


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
