"""The search of Tree of Thoughts (arXiv 2305.10601, section 3): generate next states, evaluate them, follow the best.

    Search.breadth_first    Algorithm 1, ToT-BFS
    Search.depth_first      Algorithm 2, ToT-DFS
    Search.expand           the thought generator G
    Search.evaluate         the state evaluator V

Calls run concurrently, but states are numbered, and calls are taken from the budget, in a fixed order. So the tree does
not depend on which call returns first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.errors import UNPARSED, CallFailed
from datagen.judges.judges import draw_labels, label_texts
from datagen.llm.call import Completion
from datagen.llm.model import Roles, gather_all
from datagen.parse import parse_verdict
from datagen.records.record import Prompt, Record, Row, request_text
from datagen.strategies.strategy import Strategy
from datagen.strategies.tree.tasks import State, can_win, next_states

VALUES = {"impossible": 0.001, "likely": 1.0, "sure": 20.0}
"""The paper's code; section 4.1 names the labels."""
GAME = {"values": 3, "beam": 5}
TEXT = {"samples": 5, "votes": 5, "beam": 1}
"""Sections 4.1 and 4.2."""
PROPOSALS = 8
MAX_NODES = 100
"""Section 4.3: once a depth-first tree holds so many states, none is expanded any more."""
MAX_CHILDREN = 3
"""The most children of a state that depth-first search visits: the paper's code."""
THRESHOLD = 2 * VALUES["impossible"] + VALUES["likely"]
"""v_th of Algorithm 2: a state is pruned unless its three values add up to more."""
BUDGET = 300
EVALUATING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 1024}
Parser = Callable[[str], Any]
"""From the text of a reply to a value; ParseError if there is none."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen respond --strategy tree`."""

    task: str = option("game24", "tree: the task, game24 or text.")
    search: str = option("bfs", "tree: search algorithm, bfs or dfs.")
    beam: int | None = option(None, "tree: beam width of bfs (states kept per level). [5; text: 1]", least=1)
    sampled: bool = option(False, "tree: sample the beam in proportion to the state values instead of taking the best.")
    budget: int = option(BUDGET, "tree: maximum number of calls per prompt.", least=2)
    step_preferences: bool = option(False, "tree: write preference pairs of next steps instead of responses.")
    reasoning: str = reasoning_option()


@dataclass(eq=False)
class Node:
    """A state in the tree."""

    id: int
    parent: int | None
    state: State
    values: list[float] = field(default_factory=list)
    kept: bool = False

    @property
    def value(self) -> float:
        return sum(self.values)


def read_value(text: str) -> float:
    return VALUES[parse_verdict(text, tuple(VALUES))]


def end_value(state: State) -> float:
    """Return the value of a state with one number left: it is 24, or it is not."""
    return VALUES["sure" if can_win(state) else "impossible"]


def best_first(nodes: Iterable[Node]) -> list[Node]:
    """Sort nodes by value, the highest first; the earlier first among equals."""
    return sorted(nodes, key=lambda node: (-node.value, node.id))


class Search:
    """The search tree of one record.

    Args:
        strategy: Asks the teacher and holds options and prompts.
        record: One input row.
        llm: The models by role.
        start: The root state.
    """

    def __init__(self, strategy: Strategy, record: Record, llm: Roles, start: State) -> None:
        self.strategy, self.record, self.llm = strategy, record, llm
        self.options: Options = strategy.options
        self.request = request_text(record.prompt)
        self.is_game = self.options.task == "game24"
        self.beam = self.options.beam or (GAME if self.is_game else TEXT)["beam"]
        """States kept of each level."""
        self.nodes = [Node(0, None, start)]
        self.steps = len(start.terms) - 1 if self.is_game else 2
        """Steps from the root to a leaf."""
        self.known_values: dict[str, list[float]] = {}
        """Values by the key of the state: a state that comes up twice is evaluated once."""
        self.reasonings: dict[str, str] = {}
        """What was thought before each reply, by its text; of equal replies the first."""
        self.calls = 0
        self.budget_spent = False
        self.illegal_steps = 0
        """Proposed lines that are no legal step."""
        self.unread = self.evaluations = 0
        """Evaluations that could not be read; all of them."""

    async def breadth_first(self) -> list[Node]:
        """Algorithm 1 (ToT-BFS). Return the states of the last level, the best first; none if a level is empty."""
        level = self.nodes[:1]
        for step in range(self.steps):
            # 1. S'_t: the next states of all states of the level, each state once.
            first: dict[str, Node] = {}
            for node in level:
                for child in await self.expand(node):
                    first.setdefault(child.state.key, child)
            candidates = list(first.values())
            if not candidates:
                return []

            # 2. V_t: their values.
            await self.evaluate(candidates)

            # 3. S_t: the b states with the highest values, or b drawn in proportion to them.
            if self.options.sampled and len(candidates) > self.beam:
                candidates = self.sample_beam(candidates, step)
            level = best_first(candidates)[: self.beam]
            for node in level:
                node.kept = True
        return level

    async def depth_first(self) -> list[Node]:
        """Algorithm 2 (ToT-DFS). Return the leaves that were reached, the best first."""
        leaves: list[Node] = []
        stack = [(self.nodes[0], self.steps)]  # states to visit, the last one first, each with its steps to a leaf
        while stack:
            node, steps_left = stack.pop()
            node.kept = node.parent is not None

            # 1. t > T: record the output. The search is over at the first leaf whose value is above the threshold.
            if steps_left == 0:
                leaves.append(node)
                if node.value > THRESHOLD:
                    break
                continue
            if len(self.nodes) >= MAX_NODES:
                continue

            # 2. Generate and evaluate the next states, and prune those that are not above the threshold.
            children = await self.expand(node)
            await self.evaluate(children)
            promising = [child for child in children if child.value > THRESHOLD]

            # 3. Visit the rest, the best first; the states that wait already come after them.
            stack += [(child, steps_left - 1) for child in reversed(best_first(promising)[:MAX_CHILDREN])]
        return best_first(leaves)

    async def expand(self, node: Node) -> list[Node]:
        """G: generate the states that may follow a state. Propose (game24): one call, many steps. Sample (text):
        several calls, one step each."""
        if not self.pay(1 if self.is_game else TEXT["samples"]):
            return []
        state = node.state
        if self.is_game:
            (reply,) = await self.ask("tree/propose", 1, {"numbers": state.numbers, "count": str(PROPOSALS)})
            states, illegal = next_states(state, reply)
            self.illegal_steps += illegal
        else:
            template = "tree/passage" if state.path else "tree/plan"
            fields = {"prompt": self.request} | ({"plan": state.path[0]} if state.path else {})
            texts = await self.ask(template, TEXT["samples"], fields)
            states = [State((*state.path, text.strip())) for text in dict.fromkeys(texts)]
        children = [Node(number, node.id, child) for number, child in enumerate(states, len(self.nodes))]
        self.nodes += children
        return children

    async def evaluate(self, nodes: Sequence[Node]) -> None:
        """V: set the values of states. Value (game24): each by itself. Vote (text): against each other."""
        if not self.is_game:
            await self.vote(nodes)
            return
        ends = {node.state.key: node for node in nodes if len(node.state.terms) == 1}
        self.known_values |= {key: [end_value(node.state)] * GAME["values"] for key, node in ends.items()}
        unknown = dict.fromkeys(node.state.key for node in nodes if node.state.key not in self.known_values)
        affordable = [key for key in unknown if self.pay(GAME["values"])]
        values = await gather_all(
            self.ask("tree/value", GAME["values"], {"numbers": key}, read_value) for key in affordable
        )
        self.known_values |= dict(zip(affordable, values, strict=True))
        for node in nodes:
            node.values = self.known_values.get(node.state.key, [])

    async def vote(self, nodes: Sequence[Node]) -> None:
        """Ask several times which candidate is the best; a vote that cannot be read is left out."""
        if len(nodes) < 2 or not self.pay(TEXT["votes"]):
            return
        texts = [node.state.path[-1] for node in nodes]
        labels = draw_labels(self.record.random(f"vote {nodes[0].id}"), texts)
        candidates = label_texts(labels, texts, "Candidate")
        fields = {"prompt": self.request, "candidates": candidates, "form": " or ".join(labels)}
        allowed = tuple(label.lower() for label in labels)
        read_vote = partial(parse_verdict, allowed=allowed)
        for label in await self.ask("tree/vote", TEXT["votes"], fields, read_vote):
            nodes[allowed.index(label)].values.append(1.0)

    def sample_beam(self, nodes: Sequence[Node], level: int) -> list[Node]:
        """Draw a beam of states in proportion to their values, without replacement."""
        random = self.record.random(f"tree level {level}")
        pool, drawn = list(nodes), []
        for _ in range(self.beam):
            (node,) = random.choices(pool, [node.value + VALUES["impossible"] for node in pool])
            drawn.append(node)
            pool.remove(node)
        return drawn

    def pay(self, calls: int) -> bool:
        """Take calls from the budget; once it could not cover some, it is spent for good."""
        if self.budget_spent or self.calls + calls > self.options.budget:
            self.budget_spent = True
            return False
        self.calls += calls
        return True

    async def ask(self, template: str, samples: int, fields: dict[str, str], parse: Parser = str) -> list[Any]:
        """Ask for several samples of a reply at once.

        Args:
            template: The name of the prompt template.
            samples: How many samples.
            fields: The values of the template.
            parse: Reads a reply.

        Returns:
            The result of `parse` for each reply; a reply that cannot be read is left out.
        """
        prompt = self.strategy.prompts[template].render(**fields)
        replies = await gather_all(self.ask_once(prompt, number, parse) for number in range(samples))
        completions: list[Completion] = [reply for reply in replies if reply is not None]
        for completion in completions:
            self.reasonings.setdefault(completion.text.strip(), completion.reasoning)
        return [completion.value for completion in completions]

    async def ask_once(self, prompt: Prompt, number: int, parse: Parser) -> Completion | None:
        """Return one sample of a reply; None if it cannot be read."""
        self.evaluations += parse is not str
        try:
            completion = await self.strategy.ask(self.record, self.llm, prompt, number, parse=parse, **EVALUATING)
        except CallFailed as error:
            if error.reason != UNPARSED:
                raise
            self.unread += 1
            return None
        return completion

    def as_meta(self) -> Row:
        nodes = [
            {
                "id": node.id, "parent": node.parent, "state": node.state.key, "values": node.values,
                "kept": node.kept, "verified": can_win(node.state) if self.is_game else None,
            }
            for node in self.nodes
        ]  # fmt: skip
        return {
            "nodes": nodes,
            "calls": self.calls,
            "budget_spent": self.budget_spent,
            "illegal_steps": self.illegal_steps,
            "unread": self.unread,
        }
