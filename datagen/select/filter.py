"""`datagen filter`: keep the rows that no rule drops, rows of any kind. No model is called, and a kept row is the very
row that came in, in our layout.

Rules look at one row (select/heuristics.py) and verifiers check its answers (verify/): those that would be learned from
(select/subjects.py). `--against` looks for benchmark questions in its prompt and in all of its answers
(select/contamination.py), and `--dedup` compares it with every row kept before it (select/novelty.py), except those of
its own seed: a rewrite is near its parent by construction. The first rule that drops a row is its reason. With `--tag`
rules, verifiers and benchmarks drop nothing: all their reasons are in `details.tags`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from datagen.engine.method import Memory, Method
from datagen.engine.options import option
from datagen.engine.unobtained import ask
from datagen.errors import InputError, unknown_value
from datagen.llm.model import Roles
from datagen.records.files import content_digest
from datagen.records.record import Candidate, Record, Row, keep, reject
from datagen.select import Rule
from datagen.select.contamination import Benchmark, BenchmarkIndex, BenchmarkTable, Hit, read_benchmarks
from datagen.select.heuristics import FILTERS, REASONS, as_seen
from datagen.select.novelty import NewDocuments, Novelty, itself, seed_family
from datagen.select.subjects import Subject, SubjectReader, read_any, read_subjects
from datagen.verify import VERIFIERS, Verifier, pick_verifier, verdict_of

ALL, NONE = "all", "none"
UNVERIFIED = "unverified rows"
DOCUMENT_RULES = ("empty", "repetition")
"""The rules for a document: the others look at an answer to a prompt."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen filter`."""

    rule: list[str] = option([ALL], f"Rules to apply: all, none, or {', '.join(FILTERS)}. Repeatable.")
    verify: list[str] = option([], f"Drop rows whose response fails this verifier: {', '.join(VERIFIERS)}. Repeatable.")
    only_verified: bool = option(False, "Also drop rows for which a verifier has no verdict.")
    dedup: float | None = option(
        None,
        "Near-duplicate threshold (ROUGE-L F1) between prompts; 0.7 as in Self-Instruct, 1 = exact only. Documents "
        "below 1: by MinHash, as FineWeb.",
        least=0,
        most=1,
    )
    within_family: bool = option(
        False, "With --dedup: compare a row with the rows of its own seed as well; of these the first one is kept."
    )
    pool: list[str] = option(
        [], "With --dedup: compare with the rows of this file as well, as if they had been kept before. Repeatable."
    )
    against: list[str] = option(
        [],
        "Decontaminate: drop rows that contain a question of this benchmark file; FILE#FIELD,FIELD names the fields "
        "of its questions. Repeatable.",
    )
    tag: bool = option(False, "Keep the rows (except near-duplicates), and write the reasons into details.tags.")


class Filter(Method):
    """Filter rows by rules, verifiers, benchmark overlap and near-duplicates."""

    name = "filter"
    reasons = {
        **REASONS,
        "similar": "The prompt, or the document, is too similar to that of an earlier row (--dedup).",
        "duplicate": "The prompt, or the document, is that of an earlier row (--dedup).",
        "wrong:NAME": "The response fails the verifier NAME of --verify.",
        "unverified:NAME": "--only-verified: the verifier NAME cannot tell whether the response is right.",
        "contaminated:NAME": "The prompt or an answer holds a question of the benchmark file NAME (--against).",
    }
    asks = {
        UNVERIFIED: "--verify: the verifier cannot tell whether these are right, and they stay: --only-verified drops "
        'them. The verifier answer needs a known answer in the row, such as a field "answer".',
    }
    options_type = Options
    options: Options
    rules: dict[str, Rule[Record]]
    verifiers: list[tuple[str, Verifier]]
    benchmarks: list[Benchmark]
    index: BenchmarkIndex

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the row, kept or rejected."""
        # 1. Apply all rules and verifiers to its answers, of which one without a reason is enough, and look for
        #    benchmarks.
        assert isinstance(record, Subject)
        objections = [await self.reasons_against(view, is_document=record.is_document) for view in record.views]
        unverified = all(any(map(is_unverified, reasons)) for reasons in objections)
        if not self.options.only_verified:
            objections = [[reason for reason in reasons if not is_unverified(reason)] for reasons in objections]
        checked = UNVERIFIED, int(bool(self.verifiers) and not self.options.only_verified), int(unverified)
        reasons = objections[0] if all(objections) else []
        hits: list[Hit] = self.index.hits(record.prompt, record.answers) if self.benchmarks else []
        reasons += dict.fromkeys(f"contaminated:{hit.benchmark}" for hit in hits)

        # 2. Keep the row as it was read, in our own layout.
        overlap = [hit._asdict() for hit in hits]
        if reasons and not self.options.tag:
            subject = record.row | {"hits": overlap}
            dropped = reject(reasons[0], stage="filter", record=subject, reply=record.response, meta=record.meta)
            yield ask(dropped, *checked)
            return
        tags: Row = {"tags": reasons, "hits": overlap} if self.options.tag else {}
        yield ask(keep(record.row | {"meta": record.meta | tags}), *checked)

    async def reasons_against(self, record: Record, *, is_document: bool) -> list[str]:
        """Return what the rules and the verifiers have against the response of a record, and which verifiers have no
        verdict on it."""
        rules = [rule for name, rule in self.rules.items() if not is_document or name in DOCUMENT_RULES]
        seen = as_seen(record) if rules else record
        reasons = [reason for rule in rules if (reason := rule(seen))]
        for name, verify in self.verifiers:
            verdict = None if record.response is None else await verdict_of(verify, record, record.response)
            if verdict is False:
                reasons.append(f"wrong:{name}")
            elif verdict is None:
                reasons.append(f"unverified:{name}")
        return reasons

    def read_input(
        self, name: str, file: BinaryIO, shape: str | None, mapping: Mapping[str, str] | None
    ) -> SubjectReader:
        return read_any(name, file, shape, mapping)

    def conflict(self, record: Record, llm: Roles) -> str | None:
        is_document = isinstance(record, Subject) and record.is_document
        return "documents hold no answers for --verify" if is_document and self.verifiers else None

    def check(self) -> None:
        """Look up the rules and verifiers, and read the benchmarks."""
        names = self.options.rule
        for name in names:
            if name not in (*FILTERS, ALL, NONE):
                raise unknown_value("--rule", name, (ALL, NONE, *FILTERS))
        self.rules = {name: rule for name, rule in FILTERS.items() if ALL in names or name in names}
        self.verifiers = [(name, pick_verifier(name)) for name in self.options.verify]
        if self.options.pool and self.options.dedup is None:
            raise InputError("--pool needs --dedup, such as --dedup 0.7")
        self.benchmarks = read_benchmarks(self.options.against)
        self.index = BenchmarkIndex(self.benchmarks)

    def identity(self) -> dict[str, Any]:
        files = {"against": [spec.partition("#")[0] for spec in self.options.against], "pool": self.options.pool}
        return {name: {path: content_digest(path) for path in paths} for name, paths in files.items()}

    def memory(self) -> list[Memory]:
        if self.options.dedup is None:
            return []
        family_of = itself if self.options.within_family else seed_family
        rules = Novelty(self.options.dedup, family_of=family_of), NewDocuments(self.options.dedup)
        for subject in chain.from_iterable(map(read_subjects, self.options.pool)):
            for rule in rules:
                rule.remember(subject.row)
        return list(rules)

    def table(self) -> BenchmarkTable:
        return BenchmarkTable(self.benchmarks, tagged=self.options.tag)


def is_unverified(reason: str) -> bool:
    """Return whether a reason of `reasons_against` is that a verifier has no verdict."""
    return reason.startswith("unverified:")
