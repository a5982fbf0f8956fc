"""`datagen filter`: keep the rows that no rule drops, rows of any kind. A kept row is the very row that came in, in our
layout. No model is called, unless meanings are compared.

Rules look at one row (select/heuristics.py) and verifiers check its answers (verify/): those that would be learned from
(select/subjects.py). `--against` looks for benchmark questions in its prompt and in all of its answers
(select/contamination.py), and `--dedup` compares it with every row kept before it (select/novelty.py), except those of
its own seed: a rewrite is near its parent by construction. `--dedup semantic` (select/meaning.py) and `--diverse`
(select/diversity.py) compare vectors of prompts and documents. The first rule that drops a row is its reason. With
`--tag` rules, verifiers and benchmarks drop nothing: all their reasons are in `details.tags`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from datagen.engine.method import Memory, Method
from datagen.engine.options import option
from datagen.engine.unobtained import ask
from datagen.errors import CallFailed, InputError, unknown_value
from datagen.llm.model import Roles
from datagen.llm.vectors import NO_VECTOR
from datagen.plugins import FILE_NAME, OutsideFunction, find_function, kind_of, registered, short_name
from datagen.records.files import content_digest, open_input
from datagen.records.kinds import count_rows
from datagen.records.reader import DOCUMENTS, Reader
from datagen.records.record import Candidate, Record, Row, fail, keep, reject, request_text
from datagen.select import Rule
from datagen.select.contamination import Benchmark, BenchmarkIndex, BenchmarkTable, Hit, read_benchmarks
from datagen.select.dedup import EXACT, NO_DEDUP, Dedup, read_dedup
from datagen.select.diversity import NOT_DIVERSE, Selection
from datagen.select.heuristics import FILTERS, REASONS, as_seen
from datagen.select.meaning import SIMILAR, THRESHOLD, Meaning
from datagen.select.novelty import FamilyOf, NewDocuments, Novelty, itself, scan_notice, seed_family
from datagen.select.subjects import Subject, SubjectReader, read_any, read_subjects
from datagen.select.vectors import EmbeddedRow, Vectors
from datagen.verify import VERIFIERS, Verifier, outside_verifiers, pick_verifier, verdict_of

ALL, NONE = "all", "none"
UNVERIFIED = "unverified rows"
DOCUMENT_RULES = ("empty", "repetition")
"""The rules for a document: the others look at an answer to a prompt. Rules of others look at rows of every kind."""
MOST_REASON = 80
"""Characters of the reason that a rule of others gives."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen filter`."""

    rule: list[str] = option(
        [ALL], f"Rules to apply: all, none, {', '.join(FILTERS)}, or {FILE_NAME}. Repeatable.", file=True
    )
    verify: list[str] = option(
        [], f"Drop rows whose response fails this verifier: {', '.join(VERIFIERS)}, {FILE_NAME}. Repeatable.", file=True
    )
    only_verified: bool = option(False, "Also drop rows for which a verifier has no verdict.")
    dedup: list[str] = option(
        [],
        "Near-duplicate threshold (ROUGE-L F1) between prompts; 0.7 as in Self-Instruct, 1 = exact only. Documents "
        f"below 1: by MinHash, as FineWeb. Or semantic[:X]: by the cosine similarity from which rows mean the same, "
        f"{THRESHOLD} if none is given; needs --embedder. Repeat it for both.",
    )
    diverse: int | None = option(
        None, "Keep the N most diverse rows of those that pass all else; needs --embedder.", least=1
    )
    within_family: bool = option(
        False, "With --dedup: compare a row with the rows of its own seed as well; of these the first one is kept."
    )
    pool: list[str] = option(
        [],
        "With --dedup: compare with the rows of this file as well, as if they had been kept before. Repeatable.",
        file=True,
    )
    against: list[str] = option(
        [],
        "Decontaminate: drop rows that contain a question of this benchmark file; FILE#FIELD,FIELD names the fields "
        "of its questions. Repeatable.",
        file=True,
    )
    tag: bool = option(False, "Keep the rows (except near-duplicates), and write the reasons into details.tags.")


class OutsideRule(OutsideFunction):
    """A rule of others: a function from a row to the reason to drop it, or None."""

    def __call__(self, record: Record) -> str | None:
        """Return the reason to drop a row; CallFailed if the function raises, or returns something else."""
        try:
            reason = self.function(record)
            if reason is not None and not (isinstance(reason, str) and reason.strip()):
                raise TypeError(f"returned {kind_of(reason)}; a rule returns the reason to drop a row, a text, or None")
        except (Exception, SystemExit) as error:
            raise CallFailed("rule error", stage="filter", detail=self.faults.add(error)) from error
        return None if reason is None else f"rule:{' '.join(reason.split())[:MOST_REASON]}"


def outside_rule(name: str) -> OutsideRule:
    """Return a rule of others by its name; InputError if there is none."""
    rule = find_function("filter", name)
    if rule is None:
        raise unknown_value("--rule", name, (ALL, NONE, *FILTERS, *registered("filter"), FILE_NAME))
    return OutsideRule(rule.plugin, rule.function)


class Filter(Method):
    """Filter rows by rules, verifiers, benchmark overlap and near-duplicates."""

    name = "filter"
    reasons = {
        **REASONS,
        "similar": "The prompt, or the document, is too similar to that of an earlier row (--dedup).",
        "duplicate": "The prompt, or the document, is that of an earlier row (--dedup).",
        "rule:NAME": "A rule FILE.py:NAME of --rule, or of a package, dropped the row, for the reason that it gave.",
        "rule error": "A rule of --rule raised an exception, or returned something else than a text or None: "
        "`record.error` has its words.",
        "wrong:NAME": "The response fails the verifier NAME of --verify.",
        "unverified:NAME": "--only-verified: the verifier NAME cannot tell whether the response is right.",
        SIMILAR: "The prompt, or the document, means what that of the row `record.nearest` means (--dedup semantic).",
        NOT_DIVERSE: "The row is not among the most diverse ones; `record.nearest` is the nearest of them (--diverse).",
        NO_VECTOR: "The embedder gave no vector that can be used; `record.error` says why.",
        "contaminated:NAME": "The prompt or an answer holds a question of the benchmark file NAME (--against).",
    }
    asks = {
        UNVERIFIED: "--verify: the verifier cannot tell whether these are right, and they stay: --only-verified drops "
        'them. The verifier answer needs a known answer in the row, such as a field "answer".',
    }
    roles = {
        "embedder": "gives the vectors of rows, for --dedup semantic and --diverse: NAME[@URL] at an endpoint with "
        "/embeddings, hf:PATH or sim, which knows letters and no meaning"
    }
    embeds = True
    options_type = Options
    options: Options
    dedup: Dedup
    rules: dict[str, Rule[Record]]
    outside_rules: "list[OutsideRule]"
    verifiers: list[tuple[str, Verifier]]
    benchmarks: list[Benchmark]
    index: BenchmarkIndex

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the row, kept or rejected."""
        # 1. Apply all rules and verifiers to its answers, of which one without a reason is enough, and look for
        #    benchmarks.
        assert isinstance(record, Subject)
        try:
            objections = [await self.reasons_against(view, is_document=record.is_document) for view in record.views]
        except CallFailed as error:  # of a rule of others
            yield fail(error, record=record.row, meta=record.meta)
            return
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
        row = record.row | {"meta": record.meta | tags}
        if not self.roles_in_use:
            yield ask(keep(row), *checked)
            return

        # 3. Of a row that is kept so far, get the vector: those kept are compared in the fold.
        try:
            vector = await llm.embed("embedder", row["text"] if record.is_document else request_text(row["prompt"]))
        except CallFailed as error:
            yield ask(fail(error, record=record.row, meta=record.meta), *checked)
            return
        yield ask(keep(EmbeddedRow(row, vector)), *checked)

    def bound(self, record: Record, llm: Roles) -> int:
        return len(self.roles_in_use)

    @property
    def roles_in_use(self) -> Mapping[str, str]:
        return {} if self.dedup.meaning is None and self.options.diverse is None else self.roles

    async def reasons_against(self, record: Record, *, is_document: bool) -> list[str]:
        """Return what the rules and the verifiers have against the response of a record, and which verifiers have no
        verdict on it."""
        rules = [rule for name, rule in self.rules.items() if not is_document or name in DOCUMENT_RULES]
        seen = as_seen(record) if rules else record
        reasons = [reason for rule in rules if (reason := rule(seen))]
        reasons += [reason for rule in self.outside_rules if (reason := rule(record))]
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
        if self.roles_in_use and len(llm.models["embedder"]) != 1:
            return "vectors of several models cannot be compared: give one --embedder"
        is_document = isinstance(record, Subject) and record.is_document
        return "documents hold no answers for --verify" if is_document and self.verifiers else None

    def notice(self, reader: Reader[Record]) -> str | None:
        if self.word_threshold >= EXACT or reader.kind.name == DOCUMENTS.name:
            return None
        texts = reader.count_lines() or 0
        for path in self.options.pool:
            with open_input(path) as file:
                texts += count_rows(path, file) or 0
        return scan_notice(texts)

    def check(self) -> None:
        """Look up the rules and verifiers, and read the benchmarks."""
        names = self.options.rule
        self.outside_rules = [outside_rule(name) for name in names if name not in (*FILTERS, ALL, NONE)]
        self.rules = {name: rule for name, rule in FILTERS.items() if ALL in names or name in names}
        self.verifiers = [(short_name(name), pick_verifier(name)) for name in self.options.verify]
        self.dedup = read_dedup(self.options.dedup)
        if self.options.pool and self.dedup.words is None:
            raise InputError("--pool needs --dedup, such as --dedup 0.7")
        if self.options.pool and self.dedup.meaning is not None:
            raise InputError("--pool is compared by words alone: with --dedup semantic, put its rows before the others")
        self.benchmarks = read_benchmarks(self.options.against)
        self.index = BenchmarkIndex(self.benchmarks)

    @property
    def plugins(self) -> Sequence[OutsideFunction]:
        return [*self.outside_rules, *outside_verifiers(verifier for _, verifier in self.verifiers)]

    def identity(self) -> dict[str, Any]:
        files = {"against": [spec.partition("#")[0] for spec in self.options.against], "pool": self.options.pool}
        return {name: {path: content_digest(path) for path in paths} for name, paths in files.items()}

    def memory(self) -> list[Memory]:
        if self.dedup == NO_DEDUP:
            return []
        documents = NewDocuments(self.word_threshold)
        is_late = self.dedup.meaning is not None  # prompts are then compared by words and meaning together
        rules: list[Novelty | NewDocuments] = [documents] if is_late else [self.same_words(), documents]
        for subject in chain.from_iterable(map(read_subjects, self.options.pool)):
            for rule in rules:
                rule.remember(subject.row)
        return list(rules)

    def same_words(self) -> Novelty:
        """Return the rule about prompts in the same words."""
        return Novelty(self.word_threshold, family_of=self.family_of)

    @property
    def word_threshold(self) -> float:
        """That of --dedup; with --dedup semantic alone, equal texts are duplicates."""
        return EXACT if self.dedup.words is None else self.dedup.words

    @property
    def family_of(self) -> FamilyOf:
        return itself if self.options.within_family else seed_family

    def late_rule(self) -> Selection | None:
        if not self.roles_in_use:
            return None
        kept, threshold = Vectors(), self.dedup.meaning
        meaning = None if threshold is None else Meaning(kept, threshold, self.same_words(), self.family_of)
        return Selection(kept, meaning, self.options.diverse)

    def table(self) -> BenchmarkTable:
        return BenchmarkTable(self.benchmarks, tagged=self.options.tag)


def is_unverified(reason: str) -> bool:
    """Return whether a reason of `reasons_against` is that a verifier has no verdict."""
    return reason.startswith("unverified:")
