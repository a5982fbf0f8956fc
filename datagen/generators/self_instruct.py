"""Self-Instruct (arXiv 2212.10560): new tasks from a few hundred seeds, which the new ones then help to make.

    paper     8 tasks shown, 6 of people and 2 of the machine; each new one is sorted (has it a closed set of labels?),
              then gets instances, the output first if it has, the input first if not (sections 2.1 and 2.2)
    alpaca    3 tasks of people shown; many whole tasks in one call (Stanford Alpaca)
    belle     the same in Chinese (BELLE)

A new task must differ from every other, seeds included: ROUGE-L F of at most 0.7 (filters/novelty.py), besides the
rules for instructions and instances (filters/instructions.py).

A draw sees the tasks that were kept `--lag` draws before it, so the rows do not depend on how many calls run at once.
What a draw can see to be too similar costs no further call; the rest is decided where the rows are put in order.

Departures: replies are JSON lines, so no answer is torn at a stop string or a heading; of a reply that met the length
limit the whole lines are kept, and the last one is `truncated`. Instructions keep their case. Whether a task is a
classification is asked in words, without the paper's 31 examples.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from datagen.engine.method import Growing, Memory, Method, Table, Unique
from datagen.engine.options import option
from datagen.errors import CallFailed, InputError, ParseError
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.files import open_input
from datagen.records.lines import loads_strictly, text_lines
from datagen.records.reader import join_input
from datagen.records.record import BadLine, Candidate, Record, Row, fail, keep, reject, request_text, row_id
from datagen.select.instructions import ANY_LANGUAGE, CHINESE, ENGLISH, Instance, drop, drop_instances
from datagen.select.novelty import THRESHOLD
from datagen.select.task_pool import Shown, Tasks, YieldTable, choose

HUMAN, MACHINE = 6, 2
"""Tasks shown: section 2.2."""
ALPACA_SHOWN = 3
NEW_TASKS = {"paper": 7, "alpaca": 20, "belle": 10}
"""New tasks asked for in one call. The paper's prompt goes on from task 9 to 15; Alpaca asks for 20, BELLE for 10."""
INSTANCES = 5
"""The most that are kept of one task: the paper's code."""
LAG = 32
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.5, "presence_penalty": 2, "max_tokens": 2048}
"""Appendix A.1, but for the length: JSON takes more than the paper's 1024 tokens."""
BATCH_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072}
"""Stanford Alpaca's."""
INSTANCE_SAMPLING: dict[str, Any] = {"temperature": 0, "presence_penalty": 1.5, "max_tokens": 1024}
CLASSIFYING: dict[str, Any] = {"temperature": 0, "max_tokens": 16}


@dataclass(frozen=True)
class Options:
    """What Self-Instruct can be told."""

    lag: int = option(LAG, "Draws after which a kept task may be shown and compared. Less: more calls wait.", least=1)
    threshold: float = option(THRESHOLD, "ROUGE-L F above which a task is too similar.", least=0, most=1)
    personas: Path | None = option(None, "A file of personas, one a line: each draw is for one of them.")


def draws(
    items: Iterator[Record | BadLine], memory: Growing, options: Options, seed: int
) -> Iterator[Record | BadLine]:
    """Read the seeds, then draw without end."""
    assert isinstance(memory, Tasks)
    seen: set[str] = set()
    for item in items:
        if isinstance(item, BadLine):
            yield item
            continue
        instruction = str(item.meta.get("instruction") or request_text(item.prompt).partition("\n\n")[0])
        if instruction not in seen:
            memory.add_seed(item.id, instruction)
        seen.add(instruction)
    names = [each.id for each in memory.shown]
    for number in count() if names else ():
        yield Record(row_id("draw", names, number, seed), "", pass_no=number, seed=seed)


@cache
def personas(path: Path) -> list[str]:
    """Read personas, one a line."""
    with open_input(str(path)) as file:
        lines = list(text_lines(file, "persona"))
    if bad := next((line for line in lines if line.row is None), None):
        raise InputError(f"{path}:{bad.number}: {bad.problem}")
    if not lines:
        raise InputError(f"{path}: no personas: one a line")
    return [line.row["persona"].strip() for line in lines if line.row]


def json_lines(text: str) -> list[Row | None]:
    """Read a reply of JSON lines; None for a line that is none. Fences around them do no harm."""
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    return [_json(line) for line in lines if line and not line.startswith("```") and line not in ("[", "]")]


def _json(line: str) -> Row | None:
    try:
        value = loads_strictly(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    return value if whole else None


def some_lines(text: str) -> list[Row | None]:
    """Read JSON lines; a reply without a single one is no reply."""
    found = json_lines(text)
    if not any(found):
        raise ParseError("no JSON object on a line of its own")
    return found


@dataclass
class Draw:
    """One draw of tasks to show, and what the model makes of them."""

    record: Record
    llm: Roles
    prompts: Prompts
    options: Options
    mode: str

    def __post_init__(self) -> None:
        of_people = (HUMAN, MACHINE) if self.mode == "paper" else (ALPACA_SHOWN, 0)
        self.tasks = choose(self.record, *of_people)
        told = personas(self.options.personas) if self.options.personas else [""]
        self.persona = self.record.random("persona").choice(told)
        self.rules = CHINESE if self.mode == "belle" else ENGLISH if self.record.view.english else ANY_LANGUAGE

    async def ask(self) -> Completion:
        """Ask for new tasks; a reply that was cut will do."""
        name = {"paper": "self_instruct/tasks", "alpaca": "self_instruct/batch", "belle": "self_instruct/batch.zh"}
        fields = {"count": str(NEW_TASKS[self.mode]), "shown": listed(self.tasks), "persona": self.persona}
        prompt = self.prompts[name[self.mode]].render(**fields)
        params = SAMPLING if self.mode == "paper" else BATCH_SAMPLING
        return await self.llm.chat(
            "teacher", prompt, sample=self.record.sample(0), parse=some_lines, cut_ok=True, **params
        )

    def fault(self, item: Row | None, *, cut: bool) -> str | None:
        """Say why a new task is dropped at once."""
        if item is None or not item.get("instruction", "").strip():
            return "truncated" if cut else "unreadable_task"
        reason = drop(item["instruction"], self.rules)
        return reason or (None if self.record.view.is_novel(item["instruction"]) else "similar")

    def meta(self, place: int, item: Row | None, said: Completion | None) -> Row:
        instruction = (item or {}).get("instruction")
        return {
            "method": "self-instruct",
            "op": self.mode,
            "pass": self.record.pass_no,
            "parents": [task.id for task in self.tasks],
            "source_id": None,
            "task": row_id("task", [self.record.id], place, instruction),
            "instruction": instruction,
            "input": None,
            "seen": self.record.view.length,
            "nearest_seed": None,
            "seed_similarity": None,
            "is_classification": None,
            "persona": self.persona or None,
            "model": said.model if said else None,
            "finish_reason": said.finish_reason if said else None,
            "usage": said.usage if said else None,
        }

    def rejected(self, reason: str, meta: Row, reply: str | None) -> Candidate:
        about = {"id": self.record.id, "prompt": meta["instruction"]}
        return reject(reason, stage=self.mode, record=about, reply=reply, meta=meta)

    def failed(self, error: CallFailed, meta: Row) -> Candidate:
        return fail(error, record={"id": self.record.id, "prompt": meta["instruction"]}, meta=meta)

    def rows(self, meta: Row, instances: Sequence[Instance], *, cut: bool) -> list[Candidate]:
        """Make a row of each instance of a task that no rule drops."""
        reasons = drop_instances(instances, truncated=cut)
        return [
            self.rejected(reason, meta | {"input": each.input}, each.output) if reason else self.row(meta, place, each)
            for place, (each, reason) in enumerate(zip(instances, reasons, strict=True))
        ]

    def row(self, meta: Row, place: int, instance: Instance) -> Candidate:
        prompt = join_input(meta["instruction"], instance.input)
        name = row_id("self-instruct", meta["parents"], [meta["task"], place], [prompt, instance.output])
        about = meta | {"input": instance.input}
        return keep({"id": name, "prompt": prompt, "response": instance.output, "meta": about})


def listed(tasks: Sequence[Shown]) -> str:
    """Number the tasks that are shown."""
    return "\n".join(f"{number}. {' '.join(task.instruction.split())}" for number, task in enumerate(tasks, 1))


def make(mode: str) -> Any:
    """Return the generator of one mode."""

    async def self_instruct(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
        draw = Draw(record, llm, prompts, options, mode)
        try:
            said = await draw.ask()
        except CallFailed as error:
            yield draw.failed(error, draw.meta(0, None, None))
            return
        expand = instances_of if mode == "paper" else given_instance
        made = await asyncio.gather(*(task(draw, place, said, expand) for place in range(len(said.value))))
        for candidates in made:
            for candidate in candidates:
                yield candidate

    return self_instruct


Expand = Callable[[Draw, Row, Row], Awaitable[tuple[list[Instance], bool]]]


async def task(draw: Draw, place: int, said: Completion, expand: Expand) -> list[Candidate]:
    """Return the candidates of one new task."""
    item = said.value[place]
    cut = said.finish_reason == "length" and place == len(said.value) - 1
    meta = draw.meta(place, item, said)
    reason = draw.fault(item, cut=cut)
    if reason:
        return [draw.rejected(reason, meta, str((item or {}).get("instruction") or ""))]
    meta["nearest_seed"], meta["seed_similarity"] = draw.record.view.nearest_seed(item["instruction"])
    try:
        instances, torn = await expand(draw, item, meta)
    except CallFailed as error:
        return [draw.failed(error, meta)]
    return draw.rows(meta, instances, cut=torn) or [draw.rejected("no_instance", meta, None)]


async def given_instance(draw: Draw, item: Row, meta: Row) -> tuple[list[Instance], bool]:
    """Take the instance that came with the task."""
    return [Instance(item.get("input", ""), item.get("output", ""))], False


async def instances_of(draw: Draw, item: Row, meta: Row) -> tuple[list[Instance], bool]:
    """Have the task sorted, then instances written: the output first for one with labels (section 2.2)."""
    prompt = draw.prompts["self_instruct/classification"].render(instruction=item["instruction"])
    sorted_ = await draw.llm.chat("teacher", prompt, parse=read_yes, **CLASSIFYING)
    meta["is_classification"] = sorted_.value
    name = "self_instruct/output_first" if sorted_.value else "self_instruct/input_first"
    prompt = draw.prompts[name].render(instruction=item["instruction"], count=str(INSTANCES))
    said = await draw.llm.chat("teacher", prompt, parse=some_lines, cut_ok=True, **INSTANCE_SAMPLING)
    rows = [row for row in said.value if row is not None]
    found = [Instance(row.get("input", ""), row.get("output", "")) for row in rows[:INSTANCES]]
    return found, said.finish_reason == "length" and len(rows) <= INSTANCES and said.value[-1] is not None


def read_yes(text: str) -> bool:
    """Read yes or no; nothing else counts."""
    word = text.strip(" \t\r\n*_.`\"'").lower()
    if word not in ("yes", "no"):
        raise ParseError("neither Yes nor No")
    return word == "yes"


def prepare(options: Options) -> None:
    personas.cache_clear()
    if options.personas:
        personas(options.personas)


class SelfInstruct(Method):
    """Self-Instruct as the paper has it: tasks, then whether they are classifications, then instances."""

    name, variant = "self-instruct", "paper"
    options_type = Options
    options: Options
    roles = {"teacher": "thinks up tasks and their answers"}
    templates = tuple(f"self_instruct/{name}" for name in ("tasks", "classification", "input_first", "output_first"))
    endless = True

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        generate: AsyncIterator[Candidate] = make(self.variant)(record, llm, self.prompts, self.options)
        return generate

    def check(self) -> None:
        prepare(self.options)

    def candidates(self) -> int:
        return NEW_TASKS[self.variant] * (2 if self.variant == "paper" else 1)

    def bound(self, record: Record) -> int:
        return 1 + (2 * NEW_TASKS[self.variant] if self.variant == "paper" else 0)

    def memory(self) -> Sequence[Memory]:
        return [Tasks(self.options.threshold), Unique("prompt", "response")]

    def table(self) -> Table:
        return YieldTable()

    def draw(self, rows: Iterator[Record | BadLine], pool: Growing, seed: int) -> Iterator[Record | BadLine]:
        return draws(rows, pool, self.options, seed)

    def lag(self) -> int | None:
        return self.options.lag

    def next_command(self) -> str:
        return "datagen evolve {}"


class SelfInstructAlpaca(SelfInstruct):
    """Alpaca's batches: tasks with their instances in one call."""

    variant = "alpaca"
    templates = ("self_instruct/batch",)


class SelfInstructBelle(SelfInstruct):
    """BELLE's batches, in Chinese."""

    variant = "belle"
    templates = ("self_instruct/batch.zh",)
