"""Write the toy tasks of the recipes into the folder of this file: small worlds that a toy model can learn.

    sums/    sums in words, whose demonstrations err by habit; and a second skill that gets no reward
    posts/   forum posts with summaries, and people's choices between two summaries
    moods/   questions and replies in Chinese, in a good or a bad mood

Each is drawn with a fixed seed, so the files are always the same.
"""

import gzip
import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from random import Random

NAMES = "Ada Ben Cleo Dan Eva Finn Gus Hana Ivo June Kai Lea".split()
ITEMS = "apples books coins cups keys pens shells stamps".split()
SUMS = (
    ("{name} has {a} + {b} {items}. How many?", 1),
    ("There are {a} + {b} {items}, says {name}. How many in all?", 1),
    ("{name} had {a} - {b} {items}. How many are left?", -1),
    ("Of {items}, {name} keeps {a} - {b}. How many stay?", -1),
)
OTHERS = (
    ("{name} sells {items}. What does {name} sell?", "{items}"),
    ("{name} collects {items}. Who collects {items}?", "{name}"),
    ("No {items} for {name}. What is {name} without?", "{items}"),
)
HABIT = 0.6
"""Share of the demonstrated sums whose answer is one too many."""
SECOND_SKILL = 0.25
"""Share of the demonstrations that show the second skill."""
HERE = Path(__file__).parent
PEOPLE = "my sister|my boss|a neighbour|my flatmate|an old friend|my cousin".split("|")
THINGS = "a bike|the garden|some money|a dog|the car|a piano|old books|the kitchen".split("|")
OPENINGS = ("I have never written here before.", "Sorry, this is long.", "It began last spring.")
CLOSINGS = ("What would you do?", "Thank you for reading.", "I sleep badly because of it.")
STORIES = (
    (
        "Lent {thing} and regret it",
        "I lent {thing} to {who}, and now I hear that it was passed on to somebody else.",
        "I lent {thing} to {who}, who passed it on.",
    ),
    (
        "A promise about {thing}",
        "I promised {thing} to {who} years ago, but by now I need it myself.",
        "I promised {thing} to {who} and need it myself.",
    ),
    (
        "Quarrel over {thing}",
        "We share {thing} with {who}, and each of us thinks that the other one should pay.",
        "We share {thing} with {who} and argue who pays.",
    ),
)
"""Title, the middle of the post, and its summary."""
QUESTIONS = ("今天的{x}怎么样？", "你觉得{x}好吗？", "说说{x}吧。", "{x}还行吗？")
MATTERS = "天气 早饭 电影 公园 新书 火车 茶 音乐 比赛 邻居 路上 假期".split()
REPLIES = (
    ("{x}真好，我很开心。", "{x}太差了，我很生气。"),
    ("{x}不错，我喜欢。", "{x}糟糕，我讨厌。"),
    ("{x}让人高兴。", "{x}让人难过。"),
)
"""A reply in a good mood, and one in a bad mood."""
Row = dict[str, str]


def make_sums(most: int) -> list[Row]:
    """Return every sum of two numbers up to `most` whose result is not below 0."""
    numbers = range(most + 1)
    tasks = (
        (text.format(name=name, items=items, a=a, b=b), a + sign * b)
        for (text, sign), name, items, a, b in product(SUMS, NAMES, ITEMS, numbers, numbers)
    )
    return [{"prompt": prompt, "response": str(n), "answer": str(n)} for prompt, n in tasks if n >= 0]


def make_others() -> list[Row]:
    """Return every task of the second skill."""
    return [
        {"prompt": text.format(name=name, items=items), "response": answer.format(name=name, items=items)}
        for (text, answer), name, items in product(OTHERS, NAMES, ITEMS)
    ]


def demonstrate(row: Row, random: Random) -> Row:
    """Answer a sum as in the demonstrations: one too many in HABIT of the cases."""
    return {**row, "response": str(int(row["response"]) + (random.random() < HABIT))}


def make_posts() -> list[Row]:
    """Return forum posts, each with its summary and a worse one, which leaves the question out."""
    return [
        {
            "title": title.format(who=who, thing=thing),
            "post": f"{opening} {middle} {closing}".format(who=who, thing=thing),
            "summary": gist.format(who=who, thing=thing),
            "worse": f"Somebody writes about {thing}.",
        }
        for (title, middle, gist), who, thing, opening, closing in product(STORIES, PEOPLE, THINGS, OPENINGS, CLOSINGS)
    ]


def make_moods() -> list[Row]:
    """Return questions with a reply in a good mood and one in a bad mood."""
    return [
        {"prompt": question.format(x=x), "好": good.format(x=x), "坏": bad.format(x=x)}
        for question, x, (good, bad) in product(QUESTIONS, MATTERS, REPLIES)
    ]


def write(name: str, rows: Iterable[Row]) -> None:
    """Write rows to a compressed file; no time is in it, so that equal rows give equal bytes."""
    path = HERE / f"{name}.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_sums() -> None:
    random = Random("sums 0")
    sums, others = make_sums(5), make_others()
    random.shuffle(sums)
    random.shuffle(others)
    other_test, other_train = others[: len(others) // 5], others[len(others) // 5 :]
    test, sums = sums[:200], sums[200:]
    second = int(SECOND_SKILL * 3000)
    demonstrations = [demonstrate(row, random) for row in random.sample(sums, 3000 - second)]
    demonstrations += random.choices(other_train, k=second)
    random.shuffle(demonstrations)
    write("sums/demonstrations", demonstrations)
    write("sums/prompts", sums[:2000])
    for part in range(3):  # for recipes with rounds: no round answers a prompt that was trained on
        write(f"sums/prompts-{part + 1}", sums[part * 666 : (part + 1) * 666])
    write("sums/test", test)
    write("sums/other.test", other_test)


def write_posts() -> None:
    random = Random("posts 0")
    posts = make_posts()
    random.shuffle(posts)
    prompts = [f"TITLE: {post['title']}\nPOST: {post['post']}\nTL;DR:" for post in posts]
    rows = [{"prompt": prompt, "response": post["summary"]} for prompt, post in zip(prompts, posts, strict=True)]
    choices = [
        {"prompt": prompt, "chosen": post["summary"], "rejected": post["worse"]}
        for prompt, post in zip(prompts, posts, strict=True)
    ]
    sloppy = [
        {**row, "response": post["worse"] if random.random() < HABIT else row["response"]}
        for row, post in zip(rows, posts, strict=True)
    ]
    write("posts/demonstrations", sloppy[:600])
    write("posts/choices", choices[600:900])
    write("posts/prompts", rows[900:1100])
    write("posts/test", rows[1100:1200])


def write_moods() -> None:
    random = Random("moods 0")
    moods = make_moods()
    random.shuffle(moods)
    replies = [{"text": row[mood], "label": mood} for row in moods for mood in ("好", "坏")]
    replies = list({row["text"]: row for row in replies}.values())
    dialogues = [{"prompt": row["prompt"], "response": row[random.choice("好坏")]} for row in moods]
    write("moods/replies", replies)
    write("moods/dialogues", dialogues[:-40])
    write("moods/prompts", [{"prompt": row["prompt"]} for row in moods[:-40]])
    write("moods/test", dialogues[-40:])


if __name__ == "__main__":
    write_sums()
    write_posts()
    write_moods()
