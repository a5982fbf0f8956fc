"""`datagen filter`: keep the rows that no rule drops. No model is called; a kept row is the very row that came in.

Rules look at one row (select/heuristics.py), verifiers check its response (verify/), `--against` looks for benchmark
questions in its prompt (select/contamination.py), and `--dedup` compares it with every row kept before it
(select/novelty.py). The first rule that drops a row is its reason. With `--tag` rules, verifiers and benchmarks drop
nothing: all their reasons are in `meta.tags`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.engine.method import Memory, Method
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.model import Roles
from datagen.records.files import content_digest
from datagen.records.record import Candidate, Record, Row, keep, reject
from datagen.select import Rule
from datagen.select.contamination import Benchmark, BenchmarkIndex, BenchmarkTable, Hit, read_benchmarks
from datagen.select.heuristics import FILTERS
from datagen.select.novelty import Novelty
from datagen.verify import VERIFIERS, Verifier, pick_verifier

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Options:
    """Options of `datagen filter`."""

    rule: list[str] = option([ALL], f"Rules to apply: all, none, or {', '.join(FILTERS)}. Repeatable.")
    verify: list[str] = option([], f"Drop rows whose response fails this verifier: {', '.join(VERIFIERS)}. Repeatable.")
    only_verified: bool = option(False, "Also drop rows for which a verifier has no verdict.")
    dedup: float | None = option(
        None,
        "Near-duplicate threshold (ROUGE-L F1) between prompts; 0.7 as in Self-Instruct, 1 = exact only.",
        least=0,
        most=1,
    )
    against: list[str] = option(
        [],
        "Decontaminate: drop rows that contain a question of this benchmark file; FILE#FIELD,FIELD names the fields "
        "of its questions. Repeatable.",
    )
    tag: bool = option(False, "Keep the rows (except near-duplicates), and write the reasons into meta.tags.")


class Filter(Method):
    """Filter rows by rules, verifiers, benchmark overlap and near-duplicates."""

    name = "filter"
    options_type = Options
    options: Options
    rules: list[Rule[Record]]
    verifiers: list[tuple[str, Verifier]]
    benchmarks: list[Benchmark]
    index: BenchmarkIndex

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the row, kept or rejected."""
        # 1. Apply all rules, verifiers and benchmarks.
        reasons = [reason for rule in self.rules if (reason := rule(record))]
        for name, verify in self.verifiers:
            verdict = verify(record, record.response or "")
            if verdict is False:
                reasons.append(f"wrong:{name}")
            elif verdict is None and self.options.only_verified:
                reasons.append(f"unverified:{name}")
        hits: list[Hit] = self.index.hits(record.prompt) if self.benchmarks else []
        reasons += dict.fromkeys(f"contaminated:{hit.benchmark}" for hit in hits)

        # 2. Keep the row as it was read, in our own shape.
        overlap = [hit._asdict() for hit in hits]
        if reasons and not self.options.tag:
            subject = {"id": record.id, "prompt": record.prompt, "hits": overlap}
            yield reject(reasons[0], stage="filter", record=subject, reply=record.response, meta=record.meta)
            return
        tags: Row = {"tags": reasons, "hits": overlap} if self.options.tag else {}
        response = {} if record.response is None else {"response": record.response}
        meta = record.meta or {"method": "input", "parents": [], "source_id": record.source_id}
        yield keep({"id": record.id, "prompt": record.prompt, **response, "meta": meta | tags, **record.extra})

    def check(self) -> None:
        """Look up the rules and verifiers, and read the benchmarks."""
        names = self.options.rule
        for name in names:
            if name not in (*FILTERS, ALL, NONE):
                raise InputError(f"--rule {name}: expected all, none, or one of {', '.join(FILTERS)}")
        self.rules = [rule for name, rule in FILTERS.items() if ALL in names or name in names]
        self.verifiers = [(name, pick_verifier(name)) for name in self.options.verify]
        self.benchmarks = read_benchmarks(self.options.against)
        self.index = BenchmarkIndex(self.benchmarks)

    def identity(self) -> dict[str, Any]:
        return {"against": {spec: content_digest(Path(spec.partition("#")[0])) for spec in self.options.against}}

    def memory(self) -> list[Memory]:
        return [Novelty(self.options.dedup)] if self.options.dedup is not None else []

    def table(self) -> BenchmarkTable:
        return BenchmarkTable(self.benchmarks)
