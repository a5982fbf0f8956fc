"""Write the toy tasks of the recipes into the folder of this file: small worlds that a toy model can learn.

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

HABIT = 0.6
"""Share of the demonstrations that are worse than they could be."""
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
    write_posts()
    write_moods()
