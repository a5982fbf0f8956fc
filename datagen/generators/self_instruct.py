"""Self-Instruct (arXiv 2212.10560): new tasks from a few hundred seed tasks and from the tasks generated so far.

    paper     8 example tasks, 6 human-written and 2 generated; each new task is classified (does it have a closed
              set of labels?), then gets instances: output first if it has, input first if not (sections 2.1 and 2.2)
    alpaca    3 human-written examples; many whole tasks in one call (Stanford Alpaca)
    belle     the same in Chinese (BELLE)

A new task must differ from every other, seeds included: ROUGE-L F1 of at most 0.7 (select/novelty.py), besides the
rules for instructions and instances (select/instructions.py).

A draw sees the tasks that were kept `--lag` draws before it, so the rows do not depend on how many calls run at once.
A task too similar to one that its draw sees costs no further call. The tasks kept since then are compared when the
rows are put in order.

Beyond the paper, `--topics` has each draw ask for tasks about one topic: of a file, or of a tree (select/topics.py).

Departures: replies are JSON, so no answer is cut at a stop string or a heading; of a reply that met the length limit
the whole objects are kept, and the last one is `truncated`. What a server takes of the schema is sent with the request
(llm/forms.py), and what cannot be read is counted, object by object. Instructions keep their case. The prompt that asks
whether a task is a classification has no examples; the paper's has 31. Temperature, top-p and penalties are those of
the server, not the paper's for GPT-3.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar

from datagen.engine.method import GrowingMemory, Memory, Method, Unique
from datagen.engine.options import option
from datagen.engine.unobtained import ask
from datagen.errors import UNPARSED, CallFailed, ParseError
from datagen.json_replies import read_items
from datagen.llm.call import Completion
from datagen.llm.dialects import CUT
from datagen.llm.model import Roles, gather_all
from datagen.prompts import Prompts
from datagen.records.record import BadLine, Candidate, Record, Row, digest, fail, keep, reject, request_text, row_id
from datagen.records.shapes import join_input
from datagen.schemas import Schema, list_schema, object_schema, parse_schema
from datagen.select import Rule, first_reason
from datagen.select.instructions import ANY_LANGUAGE, CHINESE, ENGLISH, TASK_REASONS, Instance, instance_reasons
from datagen.select.novelty import THRESHOLD
from datagen.select.task_pool import Task, TaskPool, TaskView, YieldTable
from datagen.select.topics import Topics, load_topics, read_lines

INSTANCES = 5
"""The most instances kept of one task: the paper's code."""
LAG = 32
SAMPLING: dict[str, Any] = {"max_tokens": 2048}
"""JSON takes more than the paper's 1024 tokens. Appendix A.1 has settings for GPT-3; a chat model has its own."""
BATCH_SAMPLING: dict[str, Any] = {"max_tokens": 3072}
"""The length is Stanford Alpaca's."""
INSTANCE_SAMPLING: dict[str, Any] = {"max_tokens": 1024}
CLASSIFICATION_SAMPLING: dict[str, Any] = {"temperature": 0, "max_tokens": 16}
TASKS, EXAMPLES = "tasks", "examples"
"""The keys of the lists in replies."""
TEXT: Row = {"type": "string"}
TASK_SCHEMA = parse_schema("tasks", list_schema(TASKS, object_schema({"instruction": TEXT})), "tasks")
BATCH_SCHEMA = parse_schema(
    "batch", list_schema(TASKS, object_schema({"instruction": TEXT, "input": TEXT, "output": TEXT})), "batch"
)
INPUT_FIRST_SCHEMA = parse_schema(
    "input_first", list_schema(EXAMPLES, object_schema({"input": TEXT, "output": TEXT})), "input_first"
)
OUTPUT_FIRST_SCHEMA = parse_schema(
    "output_first", list_schema(EXAMPLES, object_schema({"output": TEXT, "input": TEXT})), "output_first"
)
"""What is asked for; what stands first in an object is written first."""
VALUE: Row = {"type": ["string", "null", "array", "object"]}
READ_TASK = parse_schema(
    "task", {"properties": {"instruction": TEXT, "input": VALUE, "output": VALUE}, "required": ["instruction"],
             "type": "object"}, "task"
)  # fmt: skip
READ_EXAMPLE = parse_schema(
    "example", {"properties": {"input": VALUE, "output": VALUE}, "required": ["output"], "type": "object"}, "example"
)
"""What is taken: an input may be null or absent, a value may have parts (`as_text`), and there may be other keys."""
EMPTY_DRAWS = "draws without tasks"
UNANSWERED = ("no answer", "timed out")
"""Failures that say nothing about the request: the next run asks again, so no later draw may build on them."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen self-instruct`."""

    lag: int = option(
        LAG,
        "Number of draws (requests for new tasks) after which later draws see an accepted task; a lower lag allows "
        "less concurrency.",
        least=1,
    )
    threshold: float = option(
        THRESHOLD, "Near-duplicate threshold (ROUGE-L F1) between instructions; 0.7 as in the paper.", least=0, most=1
    )
    personas: Path | None = option(None, "File of personas, one per line; each draw uses one of them.")
    topics: str | None = option(
        None,
        "File of topics, one per line, or the breadth of a tree of them that the model makes; each draw is for one.",
        file=True,
    )
    topic_depth: int = option(
        2, "Levels of the tree of --topics; its leaves are breadth to the power of them.", least=1
    )


class SelfInstruct(Method):
    """Self-Instruct as in the paper: new tasks, then whether each is a classification, then its instances."""

    name, variant = "self-instruct", "paper"
    options_type = Options
    options: Options
    next_step = "evolve"
    roles = {"teacher": "writes tasks and their answers"}
    templates = tuple(
        f"self_instruct/{name}" for name in ("tasks", "classification", "input_first", "output_first", "topics")
    )
    endless = True
    asks = {
        EMPTY_DRAWS: "The server refuses the request for new tasks, or no answer to it can be used: see the rejected "
        "rows, and name another --model."
    }
    needs = (EMPTY_DRAWS,)
    reasons = {
        **TASK_REASONS,
        "similar": "The task is too similar to an earlier one (--threshold).",
        "unasked_task": "The reply goes on beyond the number of tasks asked for.",
        "unreadable_task": "Something in the reply, or all of it, is no task: no JSON object with an instruction.",
        "unreadable_instance": "Something in the reply, or all of it, is no example: no JSON object with an output.",
        "unasked_instance": "The reply has more examples of the task than are kept (5).",
    }
    examples: ClassVar[tuple[int, int]] = (6, 2)
    """Human-written and generated tasks shown in the prompt: section 2.2."""
    new_tasks: ClassVar[int] = 7
    """New tasks requested in one call: the paper's prompt goes on from task 9 to 15."""
    calls_per_task: ClassVar[int] = 2
    """Further calls for a new task: whether it is a classification, and its instances."""
    candidates = 2 * new_tasks
    sampling: ClassVar[dict[str, Any]] = SAMPLING
    schema: ClassVar[Schema] = TASK_SCHEMA
    """Of the reply with new tasks."""
    rules: ClassVar[tuple[Rule[str], ...]] = ()
    """The rules for instructions. Empty: those for English or for any language, as the seeds are."""
    personas: list[str]
    """Read by `check`; one empty persona without `--personas`."""
    topics: Topics
    """Read by `check`."""
    topic_template: ClassVar[str] = "self_instruct/topics"

    def __init__(self, options: Options, prompts: Prompts) -> None:
        super().__init__(options, prompts)
        self.lag = options.lag

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield the candidates of one draw, task by task in the order of the reply."""
        # 1. Show tasks of the pool as it stood `--lag` draws ago, and ask for new ones (section 2.2).
        view: TaskView = record.view
        examples = view.draw_examples(record.random("tasks shown"), *self.examples)
        persona = record.random("persona").choice(self.personas)
        meta = self.row_meta(
            record,
            parents=[task.id for task in examples],
            seed_id=None,
            task=row_id("task", [record.id], 0, None),
            instruction=None,
            input=None,
            seen=view.length,
            nearest_seed=None,
            seed_similarity=None,
            is_classification=None,
            persona=persona or None,
            topic=None,
            leaf=self.topics.leaf_of(record.pass_no, record.seed) if self.topics.count else None,
            model=None,
            finish_reason=None,
            usage=None,
        )
        numbered = "\n".join(f"{n}. {' '.join(task.instruction.split())}" for n, task in enumerate(examples, 1))
        sample = record.sample(0)
        try:
            topic = await self.topic(llm, meta)
            fields = {"count": str(self.new_tasks), "shown": numbered, "persona": persona, "topic": topic}
            prompt = self.prompts[self.templates[0]].render(**fields)
            reply = await llm.chat(
                "teacher", prompt, sample=sample, parse=read_tasks, schema=self.schema, cut_ok=True, **self.sampling
            )
        except CallFailed as error:
            empty = self.empty_or_failed(error, "unreadable_task", {"id": record.id, "prompt": None}, meta)
            yield ask(empty, EMPTY_DRAWS, 1, 1)
            return
        meta |= {"model": reply.model, "finish_reason": reply.finish_reason, "usage": reply.usage}

        # 2. Check and complete the new tasks, all at once. Where the reply was cut, its last task is incomplete.
        tasks, readable = [], 0
        for place, item in enumerate(reply.value):
            task, readable = item or {}, readable + (item is not None)
            instruction = task.get("instruction")
            name = row_id("task", [record.id], place, instruction)
            identity = {"seed_id": name, "task": name, "instruction": instruction}
            cut = is_cut(reply) and place == len(reply.value) - 1
            tasks.append(self.complete(record, llm, task, meta | identity, cut=cut, unasked=readable > self.new_tasks))
        candidates = chain.from_iterable(await gather_all(tasks))
        for number, candidate in enumerate(candidates):
            yield ask(candidate, EMPTY_DRAWS, int(number == 0), 0)

    async def topic(self, llm: Roles, meta: Row) -> str:
        """Return the topic of a draw, and note it in `meta`; empty without `--topics`. Raises CallFailed."""
        if meta["leaf"] is not None:
            meta["topic"] = await self.topics.name(meta["leaf"], llm, self.prompts[self.topic_template])
        return meta["topic"] or ""

    async def complete(
        self, record: Record, llm: Roles, task: Row, meta: Row, *, cut: bool, unasked: bool
    ) -> list[Candidate]:
        """Return the candidates of one new task.

        Args:
            record: The draw.
            llm: The models by role.
            task: The task, as the reply states it; empty for one that cannot be read.
            meta: The `meta` of its rows.
            cut: Whether the reply ended inside the task.
            unasked: Whether it is beyond the number of tasks asked for: its calls would exceed the bound of the draw.
        """
        view: TaskView = record.view
        subject: Row = {"id": record.id, "prompt": meta["instruction"]}

        # 1. Filter the instruction by the rules and by its similarity to the tasks in view (section 2.3).
        instruction = task.get("instruction", "")
        reason: str | None
        if unasked:
            reason = "unasked_task"
        elif instruction.strip():
            rules = self.rules or (ENGLISH if view.pool.english else ANY_LANGUAGE)
            reason = first_reason(rules, instruction) or (None if view.is_novel(instruction) else "similar")
        else:
            reason = "truncated" if cut else "unreadable_task"
        if reason:
            return [reject(reason, stage=self.variant, record=subject, reply=instruction, meta=meta)]
        meta["nearest_seed"], meta["seed_similarity"] = view.nearest_seed(instruction)

        # 2. Get its instances, and filter these (sections 2.2 and 2.3).
        try:
            items, is_torn = await self.instances(llm, task, meta, cut=cut)
        except CallFailed as error:
            return [self.empty_or_failed(error, "unreadable_instance", subject, meta)]
        instances = [
            Instance(as_text(item.get("input")), as_text(item.get("output"))) for item in items if item is not None
        ]
        candidates = []
        reasons = instance_reasons(instances[:INSTANCES], truncated=is_torn and items[-1] is not None)
        for _ in instances[INSTANCES:]:
            reasons.append("unasked_instance")
        for place, ((source, output), reason) in enumerate(zip(instances, reasons, strict=True)):
            instance_meta = meta | {"input": source}
            if reason:
                candidate = reject(reason, stage=self.variant, record=subject, reply=output, meta=instance_meta)
            else:
                prompt = join_input(instruction, source)
                name = row_id(self.name, meta["parents"], [meta["task"], place], [prompt, output])
                candidate = keep({"id": name, "prompt": prompt, "response": output, "meta": instance_meta})
            candidates.append(candidate)
        for place, item in enumerate(items):
            if item is None:
                reason = "truncated" if is_torn and place == len(items) - 1 else "unreadable_instance"
                candidates.append(reject(reason, stage=self.variant, record=subject, reply=None, meta=meta))
        return candidates

    def empty_or_failed(self, error: CallFailed, reason: str, record: Row, meta: Row) -> Candidate:
        """Return the candidate of a call without a usable answer. One that was answered, be it by a refusal, is
        rejected: the draws after it see that nothing came of it."""
        if error.reason in UNANSWERED:
            return fail(error, record=record, meta=meta)
        reason = reason if error.reason == UNPARSED else error.reason
        return reject(reason, stage=self.variant, record=record, reply=error.reply, meta=meta)

    async def instances(self, llm: Roles, task: Row, meta: Row, *, cut: bool) -> tuple[list[Row | None], bool]:
        """Return the instances of a task, None for one that cannot be read, and whether the last one is incomplete;
        sets `is_classification` in `meta`. `cut` says whether the reply with the task ended inside it.

        A classification gets its outputs first, or else its inputs would mostly have the same label (section 2.2).
        """
        instruction = task["instruction"]
        question = self.prompts["self_instruct/classification"].render(instruction=instruction)
        answer = await llm.chat("teacher", question, parse=read_yes, **CLASSIFICATION_SAMPLING)
        meta["is_classification"] = answer.value
        schema = OUTPUT_FIRST_SCHEMA if answer.value else INPUT_FIRST_SCHEMA
        prompt = self.prompts[f"self_instruct/{schema.name}"].render(instruction=instruction, count=str(INSTANCES))
        reply = await llm.chat("teacher", prompt, parse=read_examples, schema=schema, cut_ok=True, **INSTANCE_SAMPLING)
        return reply.value, is_cut(reply)

    def draw(self, rows: Iterator[Record | BadLine], pool: GrowingMemory, seed: int) -> Iterator[Record | BadLine]:
        """Read the seed tasks into the pool, then yield draws without end."""
        assert isinstance(pool, TaskPool)
        instructions: set[str] = set()
        for row in rows:
            if isinstance(row, BadLine):
                yield row
                continue
            instruction = str(row.meta.get("instruction") or row.instruction or request_text(row.prompt))
            if instruction not in instructions:
                pool.add(Task(row.id, instruction), seed=True)
            instructions.add(instruction)
        seeds = [task.id for task in pool.tasks]
        for number in count() if seeds else ():
            yield Record(row_id("draw", seeds, number, seed), "", pass_no=number, seed=seed)

    def check(self) -> None:
        """Read the personas and the topics."""
        self.personas = read_lines(self.options.personas, "persona") if self.options.personas else [""]
        self.topics = load_topics(self.options.topics, self.options.topic_depth)

    def bound(self, record: Record, llm: Roles) -> int:
        return self.topics.calls + 1 + self.calls_per_task * self.new_tasks

    def identity(self) -> dict[str, Any]:
        return {"topics": digest(self.topics.listed)}

    def table(self) -> YieldTable:
        return YieldTable(self.topics.count)

    def memory(self) -> list[Memory]:
        return [TaskPool(self.options.threshold), Unique("prompt", "response")]


class SelfInstructAlpaca(SelfInstruct):
    """Alpaca's batches: tasks together with their instances in one call."""

    variant = "alpaca"
    templates = ("self_instruct/batch", "self_instruct/topics")
    examples = (3, 0)
    candidates = new_tasks = 20
    calls_per_task = 0
    sampling = BATCH_SAMPLING
    schema = BATCH_SCHEMA

    async def instances(self, llm: Roles, task: Row, meta: Row, *, cut: bool) -> tuple[list[Row | None], bool]:
        return [task], cut


class SelfInstructBelle(SelfInstructAlpaca):
    """BELLE's batches: as Alpaca, in Chinese."""

    variant = "belle"
    topic_template = "self_instruct/topics.zh"
    templates = ("self_instruct/batch.zh", topic_template)
    candidates = new_tasks = 10
    rules = CHINESE


def read_tasks(text: str) -> list[Row | None]:
    """Read a reply with new tasks; None for what is none. Raises ParseError if there is no task."""
    return read_items(text, TASKS, READ_TASK)


def read_examples(text: str) -> list[Row | None]:
    """Read a reply with examples of a task; None for what is none. Raises ParseError if there is no example."""
    return read_items(text, EXAMPLES, READ_EXAMPLE)


def as_text(value: Any) -> str:
    """Return the value of an input or an output as text: nothing for null, a line for each text or number of a list,
    and JSON for what has further parts."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return "\n".join(item if isinstance(item, str) else json.dumps(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def is_cut(reply: Completion) -> bool:
    """Whether a reply met the limit of its length."""
    return (reply.finish_reason or "").strip().lower() in CUT


def read_yes(text: str) -> bool:
    """Read yes or no; nothing else counts."""
    word = text.strip(" \t\r\n*_.`\"'").lower()
    if word not in ("yes", "no"):
        raise ParseError("neither Yes nor No")
    return word == "yes"
