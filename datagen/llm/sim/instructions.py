"""How the procedural teacher writes instructions: Self-Instruct and its variants, Magpie, instruction
backtranslation, and a simulated user.

A new task is composed of a verb, a thing and a manner; some are arithmetic that it can solve, some have labels.
"""

import json
import re
from collections import Counter
from functools import partial

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.answer import EXPRESSION, answer
from datagen.text import CJK, tokens
from datagen.verify.languages import is_chinese


def _items(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split("/"))


VERBS = _items(
    """Describe / Compare / Explain / Suggest / List / Summarise / Imagine / Outline / Defend / Question / Rewrite /
    Name / Plan / Invent / Correct / Argue for / Translate into plain words / Sort / Praise / Review"""
)
THINGS = _items(
    """the tides at a harbour wall / a quarrel between two beekeepers / three ways to mend a roof / the last train
    home / an old map of a valley / the rules of a board game / a recipe for rye bread / the habits of night owls
    / a letter to a landlord / the price of winter apples / a fair for second-hand tools / the sound of a brass
    band / a speech at a wedding / the sleep of newborn children / two poems about rust / a garden on a balcony /
    the first frost of the year / an argument about bicycles / a museum of lost keys / the work of a lighthouse
    keeper"""
)
MANNERS = _items(
    """for readers of twelve / in the voice of a sailor / with two counterexamples / as a list of five points /
    without any adjective / for a local newspaper / in no more than fifty words / so that a stranger could follow
    it / with the costs beside the gains / from the end to the beginning / as a dialogue of two neighbours / for
    somebody who disagrees / and say what is still unknown / in the style of a weather report"""
)
LABELLED = (
    ("Is this sentence a question or a command", ("question", "command")),
    ("Does the review sound pleased or not", ("pleased", "not pleased")),
)
CHINESE_VERBS = _items("描述/比较/解释/列举/总结/设计/评价/改写")
CHINESE_THINGS = _items(
    "码头上的潮汐/两位养蜂人的争执/修补屋顶的三种办法/一张旧地图/冬天苹果的价格/夜里的铜管乐队/阳台上的小花园/初霜的早晨"
)
CHINESE_MANNERS = _items(
    "写给十二岁的读者/用水手的口吻/举两个反例/列成五点/不超过五十个字/写成两位邻居的对话/说明还有哪些未知"
)
FOLLOW_UPS = (
    "Which part of that is least certain, and why?",
    "Now say the same to somebody of twelve.",
    "Give an example of the last point.",
    "Why is that?",
    "What would somebody who disagrees reply to that?",
)
"""The user's turns after an answer: of Magpie, and of the simulated user."""
CHINESE_FOLLOW_UPS = (
    "其中哪一点最没有把握？为什么？",
    "请对十二岁的孩子再说一遍。",
    "最后一点请举个例子。",
    "为什么会这样？",
    "不同意的人会怎么回答？",
)
ENDS = 0.2
"""The share of the simulated user's turns that end the conversation."""
WORD = re.compile(r"[^\W\d_]{5,}")
FIRST_PERSON = re.compile(r"\b(?:I|my|me|je|mon)\b")
QUESTIONS = {
    "en": ("Explain {} to somebody who hears of it for the first time.", "What should one know about {}?",
           "Describe {} step by step, with the details that matter."),
    "zh": ("请介绍一下{}。", "关于{}，有哪些需要知道的？", "请详细说明{}，一步一步来。"),
}  # fmt: skip


def new_task(rng: SimRandom) -> str:
    """Compose a task: most are to be written about, some to be computed, some have labels."""
    kind = rng.random()
    if kind < 0.15:
        a, b, c = (rng.randint(2, 90) for _ in range(3))
        return f"A crate of {rng.choice(THINGS).split()[-1]} arrives {a} times a week. Compute {a} * {b} - {c}."
    if kind < 0.25:
        return f"{rng.choice(LABELLED)[0]}, if it stands in {rng.choice(THINGS)[:40]}?"
    return f"{rng.choice(VERBS)} {rng.choice(THINGS)} {rng.choice(MANNERS)}."


def new_tasks(fields: Fields, rng: SimRandom) -> list[str]:
    """Compose `count` tasks, in the language of the examples."""
    count = range(int(fields["count"]))
    if not CJK.search(fields.get("shown", "")):
        return [new_task(rng) for _ in count]
    return [
        "{}{}，{}。".format(*(rng.choice(items) for items in (CHINESE_VERBS, CHINESE_THINGS, CHINESE_MANNERS)))
        for _ in count
    ]


def tasks(fields: Fields, rng: SimRandom) -> str:
    """Self-Instruct: instructions only."""
    return listed("tasks", [{"instruction": task} for task in new_tasks(fields, rng)])


def batch(fields: Fields, rng: SimRandom) -> str:
    """Alpaca: instructions with inputs and answers."""
    new = new_tasks(fields, rng)
    return listed("tasks", [{"instruction": t, "input": "", "output": answer({"prompt": t}, rng)} for t in new])


def listed(name: str, rows: list[dict[str, str]]) -> str:
    """Write objects as a list under a name, each on a line of its own."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f'{{"{name}": [\n{lines}\n]}}'


def topics(fields: Fields, rng: SimRandom) -> str:
    """Self-Instruct: list topics below another one."""
    above = fields["above"].rpartition(" > ")[2]
    names = [f"{above} {number}".strip() if above else f"topic {number}" for number in range(int(fields["count"]))]
    return json.dumps({"topics": names}, ensure_ascii=False)


def classification(fields: Fields, rng: SimRandom) -> str:
    """Self-Instruct: say whether the answer to an instruction is one of a few labels."""
    return "Yes" if any(fields["instruction"].startswith(question) for question, _ in LABELLED) else "No"


def instances(order: str, fields: Fields, rng: SimRandom) -> str:
    """Self-Instruct: write instances of an instruction.

    Input first writes one with an answer; output first, for a classification, one for each label.
    """
    instruction = fields["instruction"]
    if order == "input first":
        return listed("examples", [{"input": "", "output": answer({"prompt": instruction}, rng)}])
    labels = next(labels for question, labels in LABELLED if instruction.startswith(question))
    rows = [{"output": label, "input": f"It sounds {label}: {rng.choice(THINGS)}."} for label in labels]
    return listed("examples", rows)


def backtranslate(fields: Fields, rng: SimRandom) -> str:
    """Ask for the subject in the header of a text, or for the most frequent words of the text."""
    subject = fields["header"].rpartition(" / ")[2].strip()
    if rng.errs():
        return "Summarise the text above."
    if not subject:
        common = Counter(WORD.findall(fields["text"])).most_common(2)
        subject = " and ".join(word for word, _ in common) or fields["text"][:10]
    return rng.choice(QUESTIONS["zh" if CJK.search(subject) else "en"]).format(subject)


def rate(fields: Fields, rng: SimRandom) -> str:
    """Rate a pair of instruction and answer: a point for each check that passes."""
    text, words = fields["response"], set(tokens(fields["prompt"]))
    checks = (
        bool(words & set(tokens(text))),
        len(text) >= 200,
        not FIRST_PERSON.search(text),
        text.rstrip()[-1:] in ".!?。！？)）`",
        "http" not in text,
    )
    points = rng.randint(0, len(checks)) if rng.errs() else sum(checks)
    return f"{len(checks) - points} of the statements fail.\nScore: {points}"


def rewrite(fields: Fields, rng: SimRandom) -> str:
    """Return the text without its headers and without lines in the first person."""
    lines = (line for line in fields["response"].splitlines() if not line.startswith("#"))
    return "\n".join(line for line in lines if not FIRST_PERSON.search(line)).strip() or fields["response"]


def follow_up(fields: Fields, rng: SimRandom) -> str:
    """Write the next message of a user: another sum after a sum, a question about the answer, or the end."""
    conversation = fields["conversation"]
    if rng.random() < ENDS:
        return "[end]"
    if EXPRESSION.search(conversation):
        a, b, c = (rng.randint(2, 90) for _ in range(3))
        return f"Now compute {a} * {b} + {c}."
    return rng.choice(CHINESE_FOLLOW_UPS if is_chinese(conversation) else FOLLOW_UPS)


HANDLERS: dict[str, Handler] = {
    "self_instruct/tasks": tasks,
    "self_instruct/batch": batch,
    "self_instruct/topics": topics,
    "self_instruct/classification": classification,
    "self_instruct/input_first": partial(instances, "input first"),
    "self_instruct/output_first": partial(instances, "output first"),
    "magpie": lambda fields, rng: rng.choice(FOLLOW_UPS) if fields["answered"] else new_task(rng),
    "user/turn": follow_up,
    "backtranslate/instruct": backtranslate,
    "backtranslate/rate": rate,
    "backtranslate/rewrite": rewrite,
}
