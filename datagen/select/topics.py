"""Topics for new tasks: the leaves of a tree, each drawn in turn, so that the tasks cover a subject evenly.

A tree is asked for from the root on: the model lists `breadth` topics, and `breadth` narrower ones within each, down to
`depth`. A draw asks for the lists on the way to its own leaf; the lists are the same for all draws, so each is paid for
once, and neither their order nor how many calls run at once changes a leaf.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from random import Random

from datagen.errors import InputError, ParseError
from datagen.json_replies import read_value
from datagen.llm.model import Roles
from datagen.prompts import Template
from datagen.records.files import open_input
from datagen.records.kinds import file_lines
from datagen.schemas import parse_schema

MOST_LEAVES = 100_000
LONGEST = 200
"""Characters of a topic."""
SCHEMA = parse_schema(
    "topics",
    {"type": "object", "properties": {"topics": {"type": "array", "items": {"type": "string"}}},
     "required": ["topics"], "additionalProperties": False},
    "topics",
)  # fmt: skip
SEPARATOR = " > "


@dataclass(frozen=True)
class Topics:
    """The topics of a file, or the leaves of a tree that a model makes.

    Args:
        listed: The topics of a file; empty for a tree.
        breadth: Topics in each list of a tree.
        depth: Lists on the way to a leaf.
    """

    listed: tuple[str, ...] = ()
    breadth: int = 0
    depth: int = 1

    @property
    def count(self) -> int:
        """The number of leaves; 0 without topics."""
        return len(self.listed) or (self.breadth**self.depth if self.breadth else 0)

    @property
    def calls(self) -> int:
        """The calls on the way to a leaf."""
        return self.depth if self.breadth else 0

    def leaf_of(self, draw: int, seed: int) -> int:
        """Return the leaf of a draw: each in turn, in an order that the seed shuffles anew for each round of them."""
        number, place = divmod(draw, self.count)
        return order_of(self.count, f"topics {seed} {number}")[place]

    async def name(self, leaf: int, llm: Roles, template: Template) -> str:
        """Return a leaf as its path, such as "Cooking > Bread".

        Raises:
            CallFailed: A list could not be obtained.
        """
        if self.listed:
            return self.listed[leaf]
        path: list[str] = []
        for level in reversed(range(self.depth)):
            prompt = template.render(count=str(self.breadth), above=SEPARATOR.join(path))
            parse = partial(read_topics, count=self.breadth)
            reply = await llm.chat("teacher", prompt, parse=parse, schema=SCHEMA, max_tokens=2048)
            path.append(reply.value[leaf // self.breadth**level % self.breadth])
        return SEPARATOR.join(path)


@lru_cache(maxsize=2)
def order_of(count: int, seed: str) -> list[int]:
    """Return the first `count` numbers in an order that the seed decides."""
    return Random(seed).sample(range(count), count)


def read_topics(text: str, count: int) -> list[str]:
    """Read the first `count` different topics of a reply. Raises ParseError if there are fewer."""
    value = json.loads(read_value(text, SCHEMA).text)["topics"]
    topics = {" ".join(topic.split()).casefold(): " ".join(topic.split()) for topic in reversed(value)}
    good = [topic for topic in reversed(topics.values()) if topic and len(topic) <= LONGEST]
    if len(good) < count:
        raise ParseError(f"{len(good)} different topics in place of {count}")
    return good[:count]


def load_topics(value: str | None, depth: int) -> Topics:
    """Return the topics of `--topics`: a file with one a line, or the breadth of a tree as a number.

    Raises:
        InputError: The file holds no topics, or the tree has too many leaves.
    """
    if value is None:
        return Topics()
    if value.isascii() and value.isdecimal():
        breadth = int(value[:9])
        if not 2 <= breadth**depth <= MOST_LEAVES:
            raise InputError(f"--topics {value}: a tree of 2 to {MOST_LEAVES:,} leaves, with --topic-depth {depth}")
        return Topics(breadth=breadth, depth=depth)
    return Topics(listed=tuple(dict.fromkeys(read_lines(Path(value), "topic"))))


def read_lines(path: Path, field: str) -> list[str]:
    """Return the texts of a file, one a line, or in a field of its rows. Raises InputError for a row without one."""
    with open_input(str(path)) as file:
        lines = list(file_lines(str(path), file, field))
    texts = [(line.row or {}).get(field) for line in lines]
    for line, text in zip(lines, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            problem = line.problem or f'no text in "{field}"'
            raise InputError(f"{line.file or path}:{line.number}: {problem}")
    if not lines:
        raise InputError(f"{path}: no {field}s; write one per line")
    return [str(text).strip() for text in texts]


class Coverage:
    """How many rows each leaf has.

    Args:
        count: The number of leaves.
    """

    def __init__(self, count: int) -> None:
        self.count, self.rows = count, Counter[int]()

    def as_dict(self) -> dict[str, int]:
        """Return the number of leaves, of those with a row, and the fewest and most rows of a leaf."""
        fewest = min(self.rows.values()) if len(self.rows) == self.count else 0
        most = max(self.rows.values(), default=0)
        return {"leaves": self.count, "covered": len(self.rows), "fewest": fewest, "most": most}

    def in_words(self) -> str:
        """Return the same for the table at the end."""
        counts = self.as_dict()
        return f"{counts['covered']:,} of {counts['leaves']:,}, {counts['fewest']} to {counts['most']} rows for each"
