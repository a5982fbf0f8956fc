"""How the procedural teacher reasons: step by step to a stated answer, and from fact to fact over passages.

Chains of thought and hints (cot, vote, rft, star). A wrong chain has a slip in its last step, and half of the time in
what it writes there too, so that there is a wrong equation to detect.

Questions over facts (mcr). It reads the passages in its prompt and knows nothing else: sentences such as "The harbour
master of Port Ells is Mira Dost." and questions made of such relations, one inside the other: "What is the birthplace
of the harbour master of Port Ells?" At each hop it reads the right name as often as its skill says; otherwise it takes
another name from the passages. When it combines facts, it believes what most of them say.
"""

import re
from collections import Counter

from datagen.llm.sim import Fields, Handler, SimRandom, game24
from datagen.llm.sim.answer import answer
from datagen.llm.sim.families import Solved, solve

RELATION, NAME = r"[a-z][a-z ]{0,40}?", r"[A-Z][\w' ]{0,40}?"
FACT = re.compile(rf"The ({RELATION}) of ({NAME}) is ({NAME})\.")
NESTED_QUESTION = re.compile(rf"What is the ([a-z][a-z ]{{0,300}}?) of ({NAME})\?")
"""Relations inside one another: "birthplace of the harbour master"."""
HOP = re.compile(rf"What is the ({RELATION}) of ({NAME})\?(?: ({NAME}|unknown))?$", re.MULTILINE)
NUMBERED_FACT = re.compile(rf"^\[(\d+)\] What is the ({RELATION}) of ({NAME})\? (.+)$", re.MULTILINE)


def reason(fields: Fields, rng: SimRandom) -> str:
    """Write a chain of thought that ends in a stated answer."""
    hand = game24.read_puzzle(fields["prompt"])
    if hand:
        return game24.write_chain(hand, rng)
    solved = solve(fields["prompt"])
    if solved is None:
        text = answer(fields, rng)
        return f"{text}\n\nAnswer: {text.splitlines()[-1]}"
    if rng.errs():
        wrong = rng.choice(solved.wrong)
        *steps, last = solved.steps
        head, match, tail = last.rpartition(solved.answer)
        slip = head + wrong + tail if match and rng.random() < 0.5 else last
        solved = Solved((*steps, slip), wrong, solved.wrong)
    return write_chain(solved, rng)


def write_chain(solved: Solved, rng: SimRandom) -> str:
    """Write the steps and the answer, with one of several beginnings."""
    start = rng.choice(("", "Let us see.", "One step after another."))
    return "\n".join([*filter(None, [start]), *solved.steps, f"Answer: {solved.answer}"])


def reason_with_hint(fields: Fields, rng: SimRandom) -> str:
    """Reason to an answer that the prompt gives; without skill, only repeat that answer."""
    solved = solve(fields["prompt"])
    if solved is None or rng.errs():
        return f"As you said, the answer is {fields['answer']}.\nAnswer: {fields['answer']}"
    return write_chain(solved, rng)


def split_question(question: str) -> tuple[list[str], str] | None:
    """Return a question's relations, from the inside out, and its entity."""
    match = NESTED_QUESTION.search(question)
    return (match[1].split(" of the ")[::-1], match[2]) if match else None


def step(fields: Fields, rng: SimRandom) -> str:
    """Answer the last question from the passages, then ask for the next hop, or end."""
    parts = split_question(fields["prompt"])
    if parts is None:
        return "Final answer: unknown"
    relations, entity = parts
    hops = HOP.findall(fields["facts"])
    lines: list[str] = []
    if hops and not hops[-1][2]:
        relation, subject, _ = hops[-1]
        facts = FACT.findall(fields["contexts"])
        right = next((value for *question, value in facts if question == [relation, subject]), None)
        others = [value for _, _, value in facts if value != right]
        value = rng.choice(others) if others and rng.errs() else right
        lines.append(f"Intermediate answer: {value or 'unknown'}")
        hops[-1] = (relation, subject, value or "unknown")
    current = hops[-1][2] if hops else entity
    if len(hops) == len(relations) or current == "unknown":
        return "\n".join([*lines, f"Final answer: {current}"])
    return "\n".join([*lines, f"Follow-up: What is the {relations[len(hops)]} of {current}?"])


def combine(fields: Fields, rng: SimRandom) -> str:
    """Go from hop to hop by what most of the facts say."""
    parts = split_question(fields["prompt"])
    if parts is None:
        return "The facts do not speak of it.\nAnswer: unsure"
    relations, current = parts
    facts = NUMBERED_FACT.findall(fields["facts"])
    lines: list[str] = []
    for relation in relations:
        values = [(number, value) for number, *question, value in facts if question == [relation, current]]
        votes = Counter(value for _, value in values if value != "unknown")
        if not votes:
            return "\n".join([*lines, f"Nothing says what the {relation} of {current} is.", "Answer: unsure"])
        majority = votes.most_common(1)[0][0]
        number = next(number for number, value in values if value == majority)
        lines.append(f"The {relation} of {current} is {majority} [{number}].")
        current = majority
    return "\n".join([*lines, f"Answer: {current}"])


HANDLERS: dict[str, Handler] = {
    "cot/reason": reason,
    "cot/extract": lambda fields, rng: f"Answer: {fields['rationale'].split()[-1].rstrip('.')}",
    "star/hint": reason_with_hint,
    "mcr/step": step,
    "mcr/meta": combine,
}
