"""Tree of Thoughts (arXiv 2305.10601): a search over partial answers, each evaluated before it is followed.

    generate    propose: one call, many next steps (game24)          sample: several calls, one step each (text)
    evaluate    value: several calls on a state, labels added up     vote: several calls on all candidates
    search      bfs: the best `--beam` of each level                 dfs: the best child first, with backtracking

`--task game24` plays the Game of 24 with the paper's settings (propose, three values, beam 5); `--task text` writes a
plan and then the answer, chosen by vote (five samples, five votes, beam 1). Steps are checked by a parser of
arithmetic. The answer is the leaf with the highest value; one that is known to be wrong is rejected. "Any of five",
which is what the paper's 74 % seems to be, is not reported.

Departures: the last line of the Game of 24, the expression, follows from the path and costs no call. A state that
comes up twice is evaluated once, and one with a single number left by arithmetic, without a call. `--budget` bounds the
calls of a record. `--step-preferences` writes, in place of
responses, a good next step over a bad one wherever an exact search can tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from datagen.engine.method import Table
from datagen.engine.unobtained import ask
from datagen.errors import InputError
from datagen.judges.preferences import PreferenceTable
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, Row, keep, request_text, row_id
from datagen.strategies.strategy import Answer, Strategy
from datagen.strategies.tree.search import GAME, MAX_CHILDREN, Node, Options, Search
from datagen.strategies.tree.tasks import MAX_NUMBERS, State, can_win, final_expression, start_game
from datagen.verify.expressions import game24, puzzle_numbers
from datagen.verify.numbers import parse_number

UNREAD = "unread evaluations"
TEMPLATES = {"game24": ("tree/propose", "tree/value"), "text": ("tree/plan", "tree/passage", "tree/vote")}


@dataclass
class TopOneTable(Table):
    """How often the first answer is right, and how many calls a prompt costs."""

    prompts: int = 0
    right: int = 0
    calls: int = 0

    def add(self, candidate: Candidate) -> None:
        self.prompts += 1
        self.right += candidate.row["meta"]["verified"] is True
        self.calls += candidate.usage.calls

    def as_dict(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "verified_first": self.right, "calls": self.calls}

    def tables(self) -> list[list[list[str]]]:
        if not self.prompts:
            return []
        share, calls = f"{100 * self.right / self.prompts:.1f} %", f"{self.calls / self.prompts:.1f}"
        return [[["prompts", "first answer verified", "calls a prompt"], [str(self.prompts), share, calls]]]


class TreeOfThoughts(Strategy):
    """Tree of Thoughts: the best path of a search over partial answers."""

    variant = "tree"
    options_type = Options
    options: Options
    reasons = {
        **Strategy.reasons,
        "no_numbers": "The prompt holds no numbers to play with. For other prompts: --task text.",
        "too_many_numbers": f"The prompt holds more than {MAX_NUMBERS} numbers.",
        "no_path": "The search found no path to an answer.",
        "budget_spent": "The calls of --budget were spent before a path was found.",
        "no_step_to_tell": "--step-preferences: no state has both a step that can win and one that cannot.",
    }
    asks = {
        **Strategy.asks,
        UNREAD: "The teacher does not value or choose steps in the form that is asked for: another model may.",
    }
    unique = ("prompt", "response", "chosen", "rejected")
    templates = (*TEMPLATES["game24"], *TEMPLATES["text"])
    details = {"nodes": [], "calls": 0, "budget_spent": False, "illegal_steps": 0, "unread": 0}

    def conflict(self, record: Record, llm: Roles) -> str | None:
        if self.options.task != "game24" or 2 <= len(self.puzzle(record)) <= MAX_NUMBERS:
            return None
        return f"--task game24 needs puzzles of 2 to {MAX_NUMBERS} numbers, such as 4 9 10 13: for others --task text"

    async def respond(self, record: Record, llm: Roles, details: Row) -> list[Candidate]:
        """Search; return the row of the best path, or the step preferences of the tree."""
        # 1. The root: the input (section 3). A puzzle starts from its numbers.
        start = State(())
        if self.options.task == "game24":
            numbers = self.puzzle(record)
            if not 2 <= len(numbers) <= MAX_NUMBERS:
                return [self.reject(record, details, "too_many_numbers" if numbers[1:] else "no_numbers")]
            start = start_game(numbers)

        # 2. Search (Algorithms 1 and 2).
        search = Search(self, record, llm, start)
        leaves = await (search.breadth_first() if self.options.search == "bfs" else search.depth_first())
        details |= search.as_meta()

        # 3. The first candidate carries what the search could not read.
        candidates = self.results(search, leaves, details)
        ask(candidates[0], UNREAD, search.evaluations, search.unread)
        return candidates

    def results(self, search: Search, leaves: Sequence[Node], details: Row) -> list[Candidate]:
        """Return the candidates of a search that is over: at least one."""
        record = search.record
        if self.options.step_preferences:
            return self.step_preferences(search, details) or [self.reject(record, details, "no_step_to_tell")]
        if not leaves:
            return [self.reject(record, details, "budget_spent" if search.budget_spent else "no_path")]

        # The path to the best leaf is the answer, dropped if it is known to be wrong.
        return [self.accept(record, details, [self.path_answer(search, leaves[0])])]

    def table(self) -> Table:
        return PreferenceTable({}) if self.options.step_preferences else TopOneTable()

    def puzzle(self, record: Record) -> list[Fraction]:
        """Return the numbers of a puzzle: the field "numbers", else those in the prompt; none if one is no number."""
        values = record.extra.get("numbers")
        if not isinstance(values, list):
            return puzzle_numbers(request_text(record.prompt))
        numbers = [parse_number(str(value)) for value in values]
        return [] if None in numbers else [number for number in numbers if number is not None]

    def path_answer(self, search: Search, leaf: Node) -> Answer:
        """Write the path to a leaf as an answer, verified where that needs no model."""
        path = leaf.state.path
        model = search.llm.model("teacher").identity
        if self.options.task == "text":
            plan, text = path[0], path[-1]
            return Answer(text, None, plan, model=model, reasoning=search.reasonings.get(text))
        expression = final_expression(leaf.state)
        text = "\n".join((*path, f"Answer: {expression}"))
        numbers = [term.value for term in search.nodes[0].state.terms]
        return Answer(text, None, "\n".join(path), expression, game24(numbers, text), model)

    def step_preferences(self, search: Search, details: Row) -> list[Candidate]:
        """Pair a step after which 24 can be reached with one after which it cannot, at each state that has both."""
        record, rows = search.record, []
        for node in search.nodes:
            children = [child.state for child in search.nodes if child.parent == node.id]
            good = next((state for state in children if can_win(state)), None)
            bad = next((state for state in children if not can_win(state)), None)
            if good is None or bad is None:
                continue
            prompt = "\n".join((search.request, *(("", *node.state.path) if node.state.path else ())))
            chosen, rejected = good.path[-1], bad.path[-1]
            name = row_id("respond tree step", [record.id], [record.pass_no, node.id], [prompt, chosen, rejected])
            meta = self.meta(record, details, [Answer(chosen, None)]) | {"nodes": []}
            row = {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": None, "meta": meta}
            rows.append(keep(row | record.extra))
        return rows

    @property
    def row_templates(self) -> tuple[str, ...]:
        return TEMPLATES[self.options.task]

    @property
    def candidates(self) -> int:
        """Return 1, or a preference for each state that four numbers let a search expand."""
        if not self.options.step_preferences:
            return 1
        if self.options.search == "bfs":
            return 1 + 2 * (self.options.beam or GAME["beam"])
        return 1 + MAX_CHILDREN + MAX_CHILDREN**2

    def bound(self, record: Record, llm: Roles) -> int:
        return self.options.budget

    def check(self) -> None:
        task, search = self.options.task, self.options.search
        if task not in TEMPLATES or search not in ("bfs", "dfs"):
            raise InputError(f"--task {task} --search {search}: expected game24 or text, bfs or dfs")
        if self.options.step_preferences and task != "game24":
            raise InputError("--step-preferences needs --task game24: the steps of a text cannot be checked")
