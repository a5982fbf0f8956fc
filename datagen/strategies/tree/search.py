"""The search of Tree of Thoughts (arXiv 2305.10601, section 3): make next states, judge them, follow the best.

Whatever happens at once is put in order before it counts: states are numbered as they are made, and the budget is taken
in that order, so the tree does not depend on which call comes back first.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datagen.engine.options import option
from datagen.errors import CallFailed
from datagen.judge.labels import draw_labels
from datagen.parse import parse_verdict
from datagen.records.record import request_text
from datagen.strategies.answering import Answering
from datagen.strategies.tree.tasks import State, next_states

VALUES = {"impossible": 0.001, "likely": 1.0, "sure": 20.0}
"""The paper's code; section 4.1 names the labels."""
GAME = {"values": 3, "beam": 5}
TEXT = {"samples": 5, "votes": 5, "beam": 1}
"""Sections 4.1 and 4.2."""
PROPOSALS = 8
NODES = 100
"""Section 4.3: once a depth-first tree holds so many states, none is expanded any more."""
CHILDREN = 3
"""Its most children of a state: the paper's code."""
PRUNED = 2 * VALUES["impossible"] + VALUES["likely"]
"""Depth first, a state is left alone if its values do not add up to more than this for three calls."""
BUDGET = 300
EVALUATING: dict[str, Any] = {"temperature": 0.7, "max_tokens": 1024}


@dataclass(frozen=True)
class Options:
    """What a tree of thoughts can be told."""

    task: str = option("game24", "tree: what is searched: game24 or text.")
    search: str = option("bfs", "tree: bfs or dfs.")
    beam: int | None = option(None, "tree: states kept of each level. [5; text: 1]", least=1)
    sampled: bool = option(False, "tree: draw the kept states in proportion to their values, in place of the best.")
    budget: int = option(BUDGET, "tree: the most calls for one prompt.", least=2)
    step_preferences: bool = option(False, "tree: write good steps over bad ones, in place of responses.")


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


@dataclass
class Search:
    """The search for one record."""

    answering: Answering
    options: Options
    nodes: list[Node] = field(default_factory=list)
    known: dict[str, list[float]] = field(default_factory=dict)
    """Values by the key of the state: what comes up twice is judged once."""
    calls: int = 0
    spent: bool = False
    """Did the budget end it?"""
    illegal: int = 0
    """Proposed lines that are no legal step."""
    unread: int = 0

    @property
    def prompt(self) -> str:
        return request_text(self.answering.record.prompt)

    def pay(self, calls: int) -> bool:
        """Take calls from the budget, if it has so many left; once it had not, it is spent."""
        if self.spent or self.calls + calls > self.options.budget:
            self.spent = True
            return False
        self.calls += calls
        return True

    def add(self, state: State, parent: Node | None) -> Node:
        node = Node(len(self.nodes), parent.id if parent else None, state)
        self.nodes.append(node)
        return node

    async def ask(self, template: str, number: int, parse_: Any = None, **fields: str) -> Any:
        """Ask; None if the reply cannot be read, which is no opinion."""
        prompt = self.answering.prompts[template].render(**fields)
        try:
            said = await self.answering.ask(prompt, number, parse=parse_, **EVALUATING)
        except CallFailed as error:
            if error.reason != "unparsed answer":
                raise
            self.unread += 1
            return None
        return said.value if parse_ else said.text


async def expand(search: Search, node: Node) -> list[Node]:
    """Make the states that may follow a state."""
    if search.options.task == "game24":
        if not search.pay(1):
            return []
        reply = await search.ask("tree/propose", 0, numbers=node.state.numbers, count=str(PROPOSALS))
        states, illegal = next_states(node.state, reply)
        search.illegal += illegal
        return [search.add(state, node) for state in states]
    if not search.pay(TEXT["samples"]):
        return []
    name = "tree/passage" if node.state.path else "tree/plan"
    fields = {"prompt": search.prompt} | ({"plan": node.state.path[0]} if node.state.path else {})
    texts = await asyncio.gather(*(search.ask(name, number, **fields) for number in range(TEXT["samples"])))
    return [search.add(State((*node.state.path, text.strip())), node) for text in dict.fromkeys(texts)]


async def evaluate(search: Search, nodes: Sequence[Node]) -> None:
    """Judge states: each by itself for game24, against each other for text."""
    if search.options.task == "text":
        await vote(search, nodes)
        return
    fresh = list(dict.fromkeys(node.state.key for node in nodes if node.state.key not in search.known))
    affordable = [key for key in fresh if search.pay(GAME["values"])]
    said = await asyncio.gather(*(value(search, key) for key in affordable))
    search.known |= dict(zip(affordable, said, strict=True))
    for node in nodes:
        node.values = search.known.get(node.state.key, [])


async def value(search: Search, numbers: str) -> list[float]:
    """Ask several times whether 24 can be reached; what cannot be read counts for nothing."""
    asks = (search.ask("tree/value", number, read_value, numbers=numbers) for number in range(GAME["values"]))
    return [each for each in await asyncio.gather(*asks) if each is not None]


def read_value(text: str) -> float:
    return VALUES[parse_verdict(text, tuple(VALUES))]


async def vote(search: Search, nodes: Sequence[Node]) -> None:
    """Ask several times which candidate is the best; a vote that cannot be read counts for nothing."""
    if len(nodes) < 2 or not search.pay(TEXT["votes"]):
        return
    texts = [node.state.path[-1] for node in nodes]
    labels = draw_labels(search.answering.record.random(f"vote {nodes[0].id}"), texts)
    shown = "\n\n".join(f"Candidate {label}:\n<<<\n{text}\n>>>" for label, text in zip(labels, texts, strict=True))
    fields = {"prompt": search.prompt, "candidates": shown, "form": " or ".join(labels)}
    allowed = tuple(label.lower() for label in labels)
    asks = (
        search.ask("tree/vote", number, lambda text: parse_verdict(text, allowed), **fields)
        for number in range(TEXT["votes"])
    )
    for said in await asyncio.gather(*asks):
        if said is not None:
            nodes[allowed.index(said)].values.append(1.0)


def depth(search: Search) -> int:
    """Steps from the start to the end."""
    if search.options.task == "text":
        return 2
    return len(search.nodes[0].state.terms) - 1


async def breadth_first(search: Search) -> list[Node]:
    """Keep the best states of each level; return the last level, the best first."""
    level = [search.nodes[0]]
    for number in range(depth(search)):
        grown = [await expand(search, node) for node in level]
        candidates = each_state_once(grown)
        if not candidates:
            return []
        await evaluate(search, candidates)
        level = choose(search, candidates, number)
    return level


def each_state_once(grown: Sequence[Sequence[Node]]) -> list[Node]:
    """Return the first node of each state."""
    first: dict[str, Node] = {}
    for node in (node for nodes in grown for node in nodes):
        first.setdefault(node.state.key, node)
    return list(first.values())


def beam_of(options: Options) -> int:
    """Return how many states of a level are kept."""
    return options.beam or (GAME if options.task == "game24" else TEXT)["beam"]


def choose(search: Search, nodes: Sequence[Node], level: int) -> list[Node]:
    """Keep the best of a level, or draw them in proportion to their values; earlier ones first among equals."""
    beam = beam_of(search.options)
    if search.options.sampled and len(nodes) > beam:
        random = search.answering.record.random(f"tree level {level}")
        left, drawn = list(nodes), []
        for _ in range(beam):
            (one,) = random.choices(left, [node.value + VALUES["impossible"] for node in left])
            drawn.append(one)
            left.remove(one)
        nodes = drawn
    best = sorted(nodes, key=lambda node: (-node.value, node.id))[:beam]
    for node in best:
        node.kept = True
    return best


async def depth_first(search: Search) -> list[Node]:
    """Follow the best child first, leave hopeless ones alone, go back; the first end that is judged sure wins."""
    ends: list[Node] = []

    async def visit(node: Node, left: int) -> bool:
        if left == 0:
            ends.append(node)
            return node.value > PRUNED
        if len(search.nodes) >= NODES:
            return False
        children = await expand(search, node)
        await evaluate(search, children)
        hopeful = [child for child in children if child.value > PRUNED]
        for child in sorted(hopeful, key=lambda each: (-each.value, each.id))[:CHILDREN]:
            child.kept = True
            if await visit(child, left - 1):
                return True
        return False

    await visit(search.nodes[0], depth(search))
    return sorted(ends, key=lambda node: (-node.value, node.id))
