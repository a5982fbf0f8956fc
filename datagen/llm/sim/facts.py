"""How the procedural teacher looks facts up: it reads what is before it, and knows nothing else.

It understands sentences "The harbour master of Port Ells is Mira Dost." and questions made of such relations, one in
the other: "What is the birthplace of the harbour master of Port Ells?" At each hop it reads rightly as often as its
skill says; else it takes another name from the passages. Weighing facts, it believes what most of them say.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from datagen.llm.sim.chance import Chance

SENTENCE = re.compile(r"The ([a-z][a-z ]*?) of ([A-Z][\w' ]*?) is ([A-Z][\w' ]*?)\.")
NESTED = re.compile(r"What is the ((?:[a-z][a-z ]*? of the )*[a-z][a-z ]*?) of ([A-Z][\w' ]*?)\?")
ONE = re.compile(r"What is the ([a-z][a-z ]*?) of ([A-Z][\w' ]*?)\?(?: ([A-Z][\w' ]*|unknown))?$", re.MULTILINE)


def hops(question: str) -> tuple[list[str], str] | None:
    """Return (relations, from the inside out, entity) of a question."""
    found = NESTED.search(question)
    return (found[1].split(" of the ")[::-1], found[2]) if found else None


def step(fields: Mapping[str, str], chance: Chance) -> str:
    """Answer the last question from the passages, then ask for the next hop, or end."""
    asked = hops(fields["prompt"])
    if asked is None:
        return "Final answer: unknown"
    relations, entity = asked
    known = ONE.findall(fields["facts"])
    lines: list[str] = []
    if known and not known[-1][2]:
        relation, about, _ = known[-1]
        read = look_up(fields["contexts"], relation, about, chance)
        lines.append(f"Intermediate answer: {read or 'unknown'}")
        known[-1] = (relation, about, read or "unknown")
    at = known[-1][2] if known else entity
    if len(known) == len(relations) or at == "unknown":
        return "\n".join([*lines, f"Final answer: {at}"])
    return "\n".join([*lines, f"Follow-up: What is the {relations[len(known)]} of {at}?"])


def look_up(passages: str, relation: str, entity: str, chance: Chance) -> str | None:
    """Read a fact in the passages; where it errs, some other name that stands there."""
    told = SENTENCE.findall(passages)
    right = next((value for said, about, value in told if (said, about) == (relation, entity)), None)
    others = [value for _, _, value in told if value != right]
    return chance.choice(others) if others and chance.errs() else right


def meta(fields: Mapping[str, str], chance: Chance) -> str:
    """Go from hop to hop by what most of the facts say."""
    asked = hops(fields["prompt"])
    facts = re.findall(r"^\[(\d+)\] What is the ([a-z][a-z ]*?) of ([A-Z][\w' ]*?)\? (.+)$", fields["facts"], re.M)
    if asked is None:
        return "The facts do not speak of it.\nAnswer: unsure"
    relations, at = asked
    lines: list[str] = []
    for relation in relations:
        said = [(number, value) for number, asks, about, value in facts if (asks, about) == (relation, at)]
        votes = Counter(value for _, value in said if value != "unknown")
        if not votes:
            return "\n".join([*lines, f"Nothing says what the {relation} of {at} is.", "Answer: unsure"])
        value = votes.most_common(1)[0][0]
        number = next(number for number, each in said if each == value)
        lines.append(f"The {relation} of {at} is {value} [{number}].")
        at = value
    return "\n".join([*lines, f"Answer: {at}"])


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {"mcr/step": step, "mcr/meta": meta}
