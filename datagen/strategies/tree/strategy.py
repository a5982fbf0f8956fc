"""Tree of Thoughts (arXiv 2305.10601): a search over partial answers, each judged before it is followed.

    generate    propose: one call, many next steps (game24)          sample: several calls, one step each (text)
    evaluate    value: several calls on a state, labels added up     vote: several calls on all candidates
    search      bfs: the best `--beam` of each level                 dfs: the best child first, back from hopeless ones

`--task game24` plays the Game of 24 with the paper's settings (propose, three values, beam 5); `--task text` writes a
plan and then the answer, chosen by vote (five samples, five votes, beam 1). Steps are checked by a parser of
arithmetic. The one answer that counts is the first by value; where a verifier can tell, a wrong one is dropped. "Any
of five", which is what the paper's 74 % seems to be, is not reported.

Departures: the last line of the Game of 24, the expression, follows from the path and costs no call. A state that
comes up twice is judged once. `--budget` bounds the calls of a record. `--step-preferences` writes, in place of
responses, a good next step over a bad one wherever an exact search can tell them apart.
"""

from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from typing import Any

from datagen.engine.method import Memory, Method, Table, Unique
from datagen.errors import InputError
from datagen.llm.model import Roles
from datagen.prompts import Prompts
from datagen.records.record import Candidate, Record, Row, keep, request_text, row_id
from datagen.strategies.answering import TEACHER, Answer, Answering
from datagen.strategies.tree.search import CHILDREN, Node, Options, Search, beam_of, breadth_first, depth_first
from datagen.strategies.tree.tasks import MOST_NUMBERS, State, answer_of, can_win, start_game
from datagen.verify.expressions import game24, puzzle_numbers
from datagen.verify.numbers import parse_number


async def tree(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one row: the path that is first by value; or the step preferences of the tree."""
    answering = Answering(record, llm, prompts, "tree", extra=extra_of(None), templates=TEMPLATES[options.task])
    search = Search(answering, options)
    start = State(())
    if options.task == "game24":
        numbers = numbers_of(record)
        if not 2 <= len(numbers) <= MOST_NUMBERS:
            yield answering.rejected("too_many_numbers" if numbers[1:] else "no_numbers", None)
            return
        start = start_game(numbers)
    search.add(start, None)
    async for candidate in answering.attempt(conclude(search)):
        yield candidate


def numbers_of(record: Record) -> list[Fraction]:
    """Return the numbers of a puzzle: the field "numbers", else those in the prompt."""
    given = record.extra.get("numbers")
    if not isinstance(given, list):
        return puzzle_numbers(request_text(record.prompt))
    found = [parse_number(str(each)) for each in given]
    return [each for each in found if each is not None] if None not in found else []


async def conclude(search: Search) -> list[Candidate]:
    """Search, and make the row of what was found."""
    found = await (breadth_first if search.options.search == "bfs" else depth_first)(search)
    answering = search.answering
    answering.extra = extra_of(search)
    if search.options.step_preferences:
        return step_preferences(search) or [answering.rejected("no_step_to_tell", None)]
    if not found:
        return [answering.rejected("budget_spent" if search.spent else "no_path", None)]
    answer = answer_from(search, found[0])
    wrong = answer.verified is False
    return [answering.rejected("wrong_answer", answer.response, answer) if wrong else answering.kept([answer])]


def answer_from(search: Search, node: Node) -> Answer:
    """Write the path to a node as an answer, checked where that can be done without a model."""
    state = node.state
    model = search.answering.llm.model("teacher").identity
    if search.options.task == "text":
        return Answer(state.path[-1], None, state.path[0], None, search.answering.check(state.path[-1]), model=model)
    final = answer_of(state)
    text = "\n".join((*state.path, f"Answer: {final}"))
    given = search.nodes[0].state.terms
    return Answer(text, None, "\n".join(state.path), final, game24([term.value for term in given], text), model=model)


def extra_of(search: Search | None) -> Row:
    """Tell of the search: the same keys in every row."""
    if search is None:
        return {"nodes": [], "calls": 0, "budget_spent": False, "illegal_steps": 0, "unread": 0}
    game = search.options.task == "game24"
    nodes = [
        {
            "id": node.id, "parent": node.parent, "state": node.state.key, "values": node.values, "kept": node.kept,
            "verified": can_win(node.state) if game else None,
        }
        for node in search.nodes
    ]  # fmt: skip
    return {
        "nodes": nodes,
        "calls": search.calls,
        "budget_spent": search.spent,
        "illegal_steps": search.illegal,
        "unread": search.unread,
    }


def step_preferences(search: Search) -> list[Candidate]:
    """Pair a step after which 24 can be reached with one after which it cannot, for each state where both were made."""
    record = search.answering.record
    made = []
    for node in search.nodes:
        children = [child for child in search.nodes if child.parent == node.id]
        good = next((child for child in children if can_win(child.state)), None)
        bad = next((child for child in children if not can_win(child.state)), None)
        if good is None or bad is None:
            continue
        prompt = "\n".join((search.prompt, *(("", *node.state.path) if node.state.path else ())))
        chosen, rejected_ = good.state.path[-1], bad.state.path[-1]
        name = row_id("respond tree step", [record.id], [record.pass_no, node.id], [prompt, chosen, rejected_])
        meta = search.answering.meta([Answer(chosen, None)]) | {"nodes": []}
        row = {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected_, "margin": None, "meta": meta}
        made.append(keep(row | record.extra))
    return made


TEMPLATES = {"game24": ("tree/propose", "tree/value"), "text": ("tree/plan", "tree/passage", "tree/vote")}


def most_rows(options: Options) -> int:
    """Return the most rows of a prompt: one, or a preference for each state that four numbers let a search expand."""
    if not options.step_preferences:
        return 1
    width = beam_of(options) if options.search == "bfs" else CHILDREN
    return 1 + width + (width if options.search == "bfs" else width**2)


class TopOneTable:
    """How often the first answer is right, and what a prompt costs."""

    def __init__(self) -> None:
        self.prompts = self.right = self.calls = 0

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        self.prompts += 1
        self.right += meta["verified"] is True
        self.calls += candidate.usage.calls

    def as_dict(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "verified_first": self.right, "calls": self.calls}

    def tables(self) -> list[list[list[str]]]:
        if not self.prompts:
            return []
        share, calls = f"{100 * self.right / self.prompts:.1f} %", f"{self.calls / self.prompts:.1f}"
        return [[["prompts", "first answer verified", "calls a prompt"], [str(self.prompts), share, calls]]]


def prepare(options: Options) -> None:
    if options.task not in TEMPLATES or options.search not in ("bfs", "dfs"):
        raise InputError(f"--task {options.task} --search {options.search}: expected game24 or text, bfs or dfs")
    if options.step_preferences and options.task != "game24":
        raise InputError("--step-preferences needs --task game24: of a text nobody can tell which step is good")


class TreeOfThoughts(Method):
    """tree."""

    name = "respond"
    variant = "tree"
    options_type = Options
    options: Options
    roles = TEACHER
    templates = (*TEMPLATES["game24"], *TEMPLATES["text"])

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return tree(record, llm, self.prompts, self.options)

    def candidates(self) -> int:
        return most_rows(self.options)

    def bound(self, record: Record) -> int:
        return self.options.budget

    def memory(self) -> Sequence[Memory]:
        return [Unique("prompt", "response", "chosen", "rejected")]

    def next_command(self) -> str:
        return "datagen train dpo {}" if self.options.step_preferences else "datagen train sft {}"

    def check(self) -> None:
        prepare(self.options)

    def table(self) -> Table:
        return TopOneTable()
