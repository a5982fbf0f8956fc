"""How the procedural teacher plays Self-Instruct: tasks put together of parts, some of a family that it can solve."""

import json
from collections.abc import Callable, Mapping

from datagen.llm.sim.arithmetic import answer
from datagen.llm.sim.chance import Chance
from datagen.text import CJK


def _parts(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("/"))


VERBS = _parts(
    """Describe / Compare / Explain / Suggest / List / Summarise / Imagine / Outline / Defend / Question / Rewrite /
    Name / Plan / Invent / Correct / Argue for / Translate into plain words / Sort / Praise / Review"""
)
THINGS = _parts(
    """the tides at a harbour wall / a quarrel between two beekeepers / three ways to mend a roof / the last train
    home / an old map of a valley / the rules of a board game / a recipe for rye bread / the habits of night owls
    / a letter to a landlord / the price of winter apples / a fair for second-hand tools / the sound of a brass
    band / a speech at a wedding / the sleep of newborn children / two poems about rust / a garden on a balcony /
    the first frost of the year / an argument about bicycles / a museum of lost keys / the work of a lighthouse
    keeper"""
)
MANNERS = _parts(
    """for readers of twelve / in the voice of a sailor / with two counterexamples / as a list of five points /
    without any adjective / for a local newspaper / in no more than fifty words / so that a stranger could follow
    it / with the costs beside the gains / from the end to the beginning / as a dialogue of two neighbours / for
    somebody who disagrees / and say what is still unknown / in the style of a weather report"""
)
LABELLED = (
    ("Is this sentence a question or a command", ("question", "command")),
    ("Does the review sound pleased or not", ("pleased", "not pleased")),
)
CHINESE_VERBS = _parts("描述/比较/解释/列举/总结/设计/评价/改写")
CHINESE_THINGS = _parts(
    "码头上的潮汐/两位养蜂人的争执/修补屋顶的三种办法/一张旧地图/冬天苹果的价格/夜里的铜管乐队/阳台上的小花园/初霜的早晨"
)
CHINESE_MANNERS = _parts(
    "写给十二岁的读者/用水手的口吻/举两个反例/列成五点/不超过五十个字/写成两位邻居的对话/说明还有哪些未知"
)


def new_task(chance: Chance) -> str:
    """Think up a task: most are to be written about, some to be worked out, some have labels."""
    kind = chance.random()
    if kind < 0.15:
        a, b, c = (chance.randint(2, 90) for _ in range(3))
        return f"A crate of {chance.choice(THINGS).split()[-1]} arrives {a} times a week. Compute {a} * {b} - {c}."
    if kind < 0.25:
        return f"{chance.choice(LABELLED)[0]}, if it stands in {chance.choice(THINGS)[:40]}?"
    return f"{chance.choice(VERBS)} {chance.choice(THINGS)} {chance.choice(MANNERS)}."


def new_chinese_task(chance: Chance) -> str:
    parts = (chance.choice(each) for each in (CHINESE_VERBS, CHINESE_THINGS, CHINESE_MANNERS))
    return "{}{}，{}。".format(*parts)


def tasks(fields: Mapping[str, str], chance: Chance) -> str:
    """Think up tasks in the language of those shown."""
    think = thinker(fields)
    made = ({"instruction": think(chance)} for _ in range(int(fields["count"])))
    return "\n".join(json.dumps(task, ensure_ascii=False) for task in made)


def thinker(fields: Mapping[str, str]) -> Callable[[Chance], str]:
    return new_chinese_task if CJK.search(fields.get("shown", "")) else new_task


def batch(fields: Mapping[str, str], chance: Chance) -> str:
    """Think up whole tasks, in the language of those shown."""
    think = thinker(fields)
    made = [think(chance) for _ in range(int(fields["count"]))]
    rows = ({"instruction": task, "input": "", "output": answer({"prompt": task}, chance)} for task in made)
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def classification(fields: Mapping[str, str], chance: Chance) -> str:
    return "Yes" if any(fields["instruction"].startswith(asked) for asked, _ in LABELLED) else "No"


def input_first(fields: Mapping[str, str], chance: Chance) -> str:
    return json.dumps({"input": "", "output": answer({"prompt": fields["instruction"]}, chance)})


def output_first(fields: Mapping[str, str], chance: Chance) -> str:
    labels = next(labels for asked, labels in LABELLED if fields["instruction"].startswith(asked))
    rows = ({"output": label, "input": f"It sounds {label}: {chance.choice(THINGS)}."} for label in labels)
    return "\n".join(json.dumps(row) for row in rows)


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "self_instruct/tasks": tasks,
    "self_instruct/batch": batch,
    "self_instruct/classification": classification,
    "self_instruct/input_first": input_first,
    "self_instruct/output_first": output_first,
}
