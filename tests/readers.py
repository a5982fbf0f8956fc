"""Every function of `datagen` that reads text from outside, as a function of that text alone.

Public functions are found by their annotations in the packages that read text. One that takes a text and nothing else
is called with it; one that takes more needs an entry in CALLS. `unlisted` names those that have none.
"""

import asyncio
import inspect
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from types import ModuleType
from typing import Any

from datagen import json_replies
from datagen.commands.trace import word_diff
from datagen.errors import CallFailed, InputError, ParseError
from datagen.generators import backtranslate, improve
from datagen.judges import difficulty, points, rank, replies
from datagen.llm.batches.lines import read_result
from datagen.llm.call import BadAnswer, Completion, Reply, TokenLogprobs, read_reply
from datagen.llm.dialects import read_message
from datagen.llm.endpoint import retry_after, wait_in_words
from datagen.llm.forms import Forms
from datagen.llm.parameters import Parameters
from datagen.llm.sim import SimRandom, answer, code, judge, structured
from datagen.llm.sim.game24 import in_order
from datagen.llm.sim.model import HANDLERS
from datagen.llm.vectors import read_vector
from datagen.parse import find_verdict, parse_verdict
from datagen.printing import printable
from datagen.records import comparisons, tables
from datagen.records.files import dump_line
from datagen.records.record import Record, with_request
from datagen.records.shapes import join_input
from datagen.records.transcripts import split_transcript
from datagen.report.markdown import fenced
from datagen.report.text import cut
from datagen.schemas import parse_schema
from datagen.select import Rule, contamination, elimination, heuristics, instructions, minhash, novelty, wrapping
from datagen.select.topics import read_topics
from datagen.sources import bm25, corpus, markup, segments
from datagen.sources.extraction import HTML
from datagen.strategies import mcr, rft, strategy
from datagen.strategies.tree import tasks
from datagen.verify import VERIFIERS, verdict_of, verify_all
from datagen.verify.code import verify_tests
from datagen.verify.constraints import checks
from datagen.verify.constraints.spec import FAMILIES, Constraint, is_met, load_constraints, verify_constraints
from datagen.verify.expressions import game24

Call = Callable[[str], object]
TEXTS = frozenset("text response prompt instruction sentence question answer document page reply body raw line".split())
"""The names of parameters that hold text from outside."""
PACKAGES = (
    "generators", "json_replies", "judge", "llm.call", "llm.sim", "parse", "reasoning", "records", "report", "schemas",
    "select", "sources", "strategies", "text", "verify",
)  # fmt: skip
LABELS = ["K7M", "Q4D"]
SCHEMA = parse_schema("task", {"properties": {"a": {"type": "string"}}, "required": ["a"]}, "task")
MOST = {"helpful": 5, "own_rubric": 3}
STATE = tasks.start_game([Fraction(number) for number in (4, 9, 10, 13)])
EXPECTED = (ParseError, BadAnswer, CallFailed)
"""What a reader raises at a text that it does not accept."""
KWARGS: dict[str, Any] = {
    "keywords": ["cat"], "forbidden_words": ["cat"], "keyword": "cat", "relation": "at least", "frequency": 2,
    "letter": "a", "let_relation": "at least", "let_frequency": 2, "language": "en", "num_sentences": 2,
    "num_paragraphs": 2, "num_words": 2, "nth_paragraph": 1, "first_word": "cat", "num_placeholders": 2,
    "postscript_marker": "P.S.", "num_bullets": 2, "num_highlights": 2, "section_spliter": "Section", "num_sections": 2,
    "prompt_to_repeat": "Name a cat.", "end_phrase": "The end.", "capital_relation": "at least", "capital_frequency": 2,
}  # fmt: skip


def record(prompt: str = "Write about a cat.", response: str | None = None) -> Record:
    return Record("0" * 16, prompt, response, extra={"answer": "4", "numbers": [4, 9, 10, 13]})


def completion(text: str) -> Completion:
    return Completion(text, "", "stop", {}, [TokenLogprobs(text, [("3", -0.1)])], "m")


def body(text: str) -> Reply:
    return Reply(200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))


class Filled(dict[str, str]):
    """Fields of a template that hold one text, but for those that our own code fills in."""

    def __init__(self, text: str) -> None:
        super().__init__(numbers="4 9 10 13", count="3")
        self.text = text

    def __missing__(self, key: str) -> str:
        return self.text


def play(task: str) -> Call:
    """Return the handler of `sim` for a task, its fields filled with one text."""

    def handle(text: str) -> None:
        with suppress(ValueError, LookupError, StopIteration, RecursionError):  # no fields of a template
            HANDLERS[task](Filled(text), SimRandom("seed", {"skill": 0.5}))

    return handle


def with_kwargs(check: Callable[[str, dict[str, Any]], object]) -> Call:
    """Return the check of a constraint, with values for it."""
    return lambda text: check(f"{text}x", KWARGS)


def of_record(rule: Rule[Record]) -> Call:
    """Return a filter of rows; prompt and response hold the text."""
    return lambda text: rule(record(text, f"{text}\nx"))


def of_step(rule: Rule[elimination.Step]) -> Call:
    """Return a rule of Evol-Instruct; rewrite and answer are the text."""
    return lambda text: rule(elimination.Step("a", text, "equal", text))


def layer_alone(layer: wrapping.Layer, text: str) -> str:
    """Take off a layer of a text that was made from another one."""
    return layer(text, "Name a tree.")


def of_row(function: Call) -> Call:
    """Return a reader of a part of a row: what it raises makes a bad row, or ends a command with one line."""

    def call(text: str) -> None:
        with suppress(InputError):
            function(text)

    return call


CALLS: dict[str, Call] = {
    "generators.backtranslate.rejection_reason": lambda text: backtranslate.rejection_reason(text, text),
    "generators.improve.rejection_reason": lambda text: improve.rejection_reason(
        record(), text, f"{text} so", improve.Options()
    ),
    "judges.rank.read_order": lambda text: rank.read_order(text, LABELS),
    "judges.replies.read_verdict": lambda text: replies.read_verdict(text, LABELS),
    "judges.replies.judge_verdict": lambda text: replies.judge_verdict(text, LABELS),
    "judges.points.find_points": lambda text: points.find_points(text, LABELS, MOST),
    "judges.points.read_points": lambda text: points.read_points(text, LABELS, MOST),
    "judges.points.points_in_line": lambda line: points.points_in_line(line, "K7M", points.Names(LABELS, MOST)),
    "json_replies.read_items": lambda text: json_replies.read_items(text, "tasks", SCHEMA),
    "json_replies.reading_of": lambda text: json_replies.reading_of({"a": text}, SCHEMA, text),
    "llm.sim.structured.text_for": lambda text: structured.text_for({"minLength": 5}, text),
    "json_replies.read_value": lambda text: json_replies.read_value(text, SCHEMA),
    "llm.sim.answer.filler": lambda text: answer.filler(text, SimRandom("seed")),
    "llm.sim.answer.unmet": lambda text: answer.unmet(text, text),
    "llm.sim.evolve.apply_operator": play("evolve/concretise"),
    "llm.sim.evolve.rewrite": play("evolve/deepen"),
    "llm.sim.judge.logprobs": lambda text: judge.logprobs(text, {}, 0.5),
    "llm.sim.judge.quality": lambda text: judge.quality(text, text),
    "parse.find_verdict": lambda text: find_verdict(text, ("a", "b", "tie")),
    "parse.parse_verdict": lambda text: parse_verdict(text, ("a", "b", "tie")),
    **{f"select.wrapping.{layer.__name__}": partial(layer_alone, layer) for layer in wrapping.LAYERS},
    "select.minhash.shingles": lambda text: minhash.shingles(text, minhash.PROMPT),
    "sources.bm25.passages_of": lambda text: list(bm25.passages_of("name", text)),
    "sources.corpus.make_source": lambda text: corpus.make_source("name", text.encode(errors="replace"), HTML, None),
    "sources.segments.content_reason": lambda text: segments.rejection_reason("A header", text),
    "sources.segments.has_repeats": lambda text: segments.rejection_reason("A header", text),
    "sources.segments.rejection_reason": lambda text: segments.rejection_reason("A header", text),
    "sources.segments.without_boilerplate": lambda text: segments.without_boilerplate(
        text, segments.Segment(None, 0, len(text)), lambda paragraph: not paragraph
    ),
    "strategies.mcr.read_explanation": lambda text: mcr.read_explanation(text, [mcr.Fact("a", "b", None)]),
    "strategies.strategy.rejection_reason": lambda text: strategy.rejection_reason(
        strategy.Answer(text, completion(text), text, text), "4"
    ),
    "strategies.tree.tasks.next_states": lambda text: tasks.next_states(STATE, text),
    "strategies.tree.tasks.play": lambda text: tasks.play(STATE, text),
    "verify.constraints.checks.count_keyword": lambda text: checks.count_keyword(text, "cat"),
    "verify.expressions.game24": lambda text: game24([Fraction(4)] * 4, text),
    "report.markdown.fenced": lambda text: fenced(text, 100),
    "report.text.cut": lambda text: cut(text, len(text) // 2),
    "judges.difficulty.read_difficulty": lambda text: difficulty.read_difficulty(text, "K7M"),
    "llm.sim.game24.in_order": lambda text: in_order(text, "a", "b"),
    "records.record.with_request": lambda text: with_request([{"role": "user", "content": "a"}], text),
    "records.comparisons.two": lambda text: comparisons.two(text, text, text, lambda value: None),
    "records.tables.cells_of": lambda text: tables.cells_of(text, ","),
    "records.tables.structured": lambda text: tables.structured("messages", f"[{text}"),
    "records.shapes.join_input": lambda text: join_input(text, text),
    "sources.markup.drop_closed": markup.without_markup,
    "llm.sim.code.write_function": lambda text: code.write_function(text, SimRandom("seed")),
    "verify.verdict_of": lambda text: asyncio.run(verdict_of(VERIFIERS["equations"], record(), text)),
    "verify.verify_all": lambda text: asyncio.run(verify_all(record(), [text], VERIFIERS.values())),
    **{f"verify.verify_{name}": partial(check, record()) for name, check in VERIFIERS.items()},
    "select.topics.read_topics": lambda text: read_topics(text, 3),
    "verify.code.verify_tests": lambda text: verify_tests(record(), text),
    "verify.constraints.checks.same_language": lambda text: checks.same_language(text, "en"),
    "verify.constraints.checks.split_parts": lambda text: checks.split_parts(checks.DIVIDER, text),
    **{
        f"verify.constraints.checks.{check.__name__}": with_kwargs(check)
        for check in (
            checks.nth_paragraph_first_word,
            checks.postscript,
            checks.multiple_sections,
            checks.json_format,
            checks.repeat_prompt,
            checks.end_checker,
            checks.quotation,
        )
    },
    "verify.constraints.spec.is_met": lambda text: is_met(Constraint("startend:quotation"), text),
    "verify.constraints.spec.load_constraints": of_row(load_constraints),
    "verify.constraints.spec.verify_constraints": lambda text: verify_constraints(record(), text),
    "records.transcripts.split_transcript": lambda text: split_transcript(f"Human: a{text}", "chosen"),
}
"""Functions that take more than a text, by their names in the package."""
OTHERS: dict[str, Call] = {
    "printing.printable": printable,
    "commands.trace.word_diff": lambda text: word_diff(text, f"{text[: len(text) // 2]} other {text}"),
    "llm.dialects.read_message": lambda text: read_message({"content": text, "reasoning": text}),
    "llm.call.read_reply": lambda text: read_reply(body(text), None),
    "llm.vectors.read_vector": lambda text: [
        read_vector(Reply(200, json.dumps({"data": [{"index": 0, "embedding": value}]})))
        for value in (text, [1, text], b64encode(text.encode(errors="replace")).decode())
    ],
    "llm.endpoint.retry_after": lambda text: retry_after({"retry-after": text, "retry-after-ms": text}),
    "llm.endpoint.wait_in_words": wait_in_words,
    "llm.parameters.Parameters.learn": lambda text: [
        Parameters("m").learn(body, {"max_tokens": 10, "temperature": 1}, [])
        for body in (text, json.dumps({"error": {"message": f"max_tokens {text} unsupported", "param": text}}))
    ],
    "llm.forms.Forms.learn": lambda text: Forms("m").learn(
        json.dumps({"error": text}), {"response_format": {"type": "json_object"}}
    ),
    "llm.batches.lines.read_result": lambda text: [
        read_result(line.encode(errors="replace"))
        for line in (text, json.dumps({"custom_id": text, "response": {"status_code": 200, "body": text}}))
    ],
    "judges.replies.soft_share": lambda text: replies.soft_share(completion(text), LABELS),
    "judges.replies.expected_value": lambda text: replies.expected_value(completion(text), 0, 5),
    "records.files.dump_line": lambda text: dump_line({"prompt": text}),
    "select.contamination.hits": lambda text: contamination.BenchmarkIndex([contamination.Benchmark("b", [text])]).hits(
        text
    ),
    "select.instructions.instance_reasons": lambda text: instructions.instance_reasons(
        [instructions.Instance(text, text)] * 2
    ),
    "select.minhash.NearDuplicates.add": lambda text: minhash.NearDuplicates().add(text[: len(text) // 8]),
    "select.novelty.Pool.is_novel": lambda text: (pool := novelty.Pool()).add(text) or pool.is_novel(text),
    "strategies.rft.select_diverse": lambda text: rft.select_diverse(
        [text, f"{text} ", f"{text} so", "1+1=2"], list("aabc"), 0
    ),
    **{f"verify.constraints.{name}": with_kwargs(family.check) for name, family in FAMILIES.items()},
    **{f"select.heuristics.{name}": of_record(rule) for name, rule in heuristics.FILTERS.items()},
    **{
        f"select.elimination.{rule.__name__}": of_step(rule)
        for rule in (*elimination.BEFORE_ANSWER, *elimination.ON_VERDICT, *elimination.ON_ANSWER)
    },
    **{
        f"select.instructions.{getattr(rule, '__name__', '') or rule.name}": rule  # type: ignore[attr-defined]
        for rule in (*instructions.ENGLISH, *instructions.CHINESE, *instructions.USER_TURN)
    },
    **{f"llm.sim: {task}": play(task) for task in HANDLERS},
}
"""Functions that are in a table, or have no parameter by which they are found."""


def signature_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters of a function that need an argument."""
    parameters = inspect.signature(function).parameters.values()
    return [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]


def text_functions(modules: Iterable[ModuleType]) -> Iterator[tuple[str, Call, bool]]:
    """Yield the public functions that read text: name, function, and whether they take nothing else."""
    for module in modules:
        package = module.__name__.removeprefix("datagen.")
        if not package.startswith(PACKAGES):
            continue
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                needed = signature_of(function)
                if any(one.name in TEXTS and one.annotation is str for one in needed):
                    yield f"{package}.{name}", function, len(needed) == 1


def readers(modules: Iterable[ModuleType]) -> dict[str, Call]:
    """Return all functions that read text."""
    alone = {name: function for name, function, is_alone in text_functions(modules) if is_alone}
    return {**OTHERS, **{name: exhaust(function) for name, function in alone.items()}, **CALLS}


def exhaust(function: Call) -> Call:
    """Return a function that also runs a generator to its end."""

    def call(text: str) -> None:
        result = function(text)
        if isinstance(result, Iterator):
            for _ in result:
                pass

    return call


def quietly(function: Call) -> Call:
    """Return a function that may refuse a text, but raises nothing else."""

    def call(text: str) -> None:
        with suppress(*EXPECTED):
            function(text)

    return call


def unlisted(modules: Iterable[ModuleType]) -> list[str]:
    """Return the functions that take more than a text and are not in CALLS."""
    return [name for name, _, is_alone in text_functions(modules) if not is_alone and name not in CALLS]
