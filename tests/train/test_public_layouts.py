"""From files in the columns of public sets to an aligned model, on models built as those sets are used with.

The texts are small and made here; what is real are the columns, the layout of the models, and each step of the chain:
most responses are vague, people prefer those that say what happened, and PPO makes the policy say it.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datagen_train import ppo, pretrain, reward, sft
from datagen_train.policy_options import PpoOptions
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.real_models import make_real
from tests.train.runs import train
from tests.train.tasks import write_rows

pytestmark = pytest.mark.slow
VAGUE = 0.7
"""Share of the responses of SFT that are vague: such an answer is the most likely one before PPO."""
COMMON: dict[str, Any] = {"held_out": 0.2, "seed": 1, "batch_size": 16}
SUBREDDITS, DONE = ("pets", "cars", "advice", "family", "work"), ("lost", "sold", "found", "broke")
THINGS = "dog car phone bike ring".split()
SYMPTOMS = {"头疼": "多喝水", "发烧": "量体温", "咳嗽": "少说话", "失眠": "早点睡", "牙疼": "看牙医"}
QUESTIONS = ("我{}怎么办？", "最近{}，怎么办？", "孩子{}怎么办？", "我妈妈{}了。", "{}要紧吗？", "老人{}了怎么办？")
SOURCES = ("医生说：", "书上写着，", "大家都知道，", "记住：", "我听说，", "老师告诉我们，")


def chosen_at_random(clear: str, vague: str, number: int) -> str:
    """Return the response of a row, mostly the vague one."""
    return vague if Random(f"row {number}").random() < VAGUE else clear


def write_base(family: str, texts: Sequence[str]) -> str:
    model, tokenizer = make_real(family, texts)
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")
    return "base"


def align(vague: str, comparisons: str, prompts: str, **columns: Any) -> None:
    """Train a reward model on the comparisons, and the policy by it; held-out answers get better."""
    judged = train(reward, comparisons, model="sft", output="rm", steps=40, learning_rate=2e-3, **COMMON)
    assert judged["end"]["eval_accuracy"] >= 0.9, judged["end"]
    options = PpoOptions(reward=["rm"], max_tokens=20, kl_coef=0.02)
    result = train(
        ppo, prompts, options, model="sft", output="ppo", steps=16, eval_every=4, learning_rate=1e-3,
        **COMMON | {"batch_size": 32} | columns,
    )  # fmt: skip
    start, end = result["start"], result["end"]
    assert result["learned"] is True, result["outcome"]
    assert end["eval_reward"] > start["eval_reward"] + 0.5, (start, end)
    before, after = (share(vague, folder, prompts, **columns) for folder in ("sft", "ppo"))
    assert before > 0.5 > after, (before, after)


def share(text: str, folder: str, prompts: str, **columns: Any) -> float:
    """Return the share of the answers to held-out prompts that are a text."""
    output = f"{folder}.answers.jsonl"
    evaluate.run(folder, prompts, EvalOptions(output=output, held_out=COMMON["held_out"], max_tokens=20, **columns))
    answers = [json.loads(line)["answer"] for line in Path(output).read_text().splitlines()]
    return answers.count(text) / len(answers)


def test_posts_are_summarised_as_people_prefer_on_the_layout_of_opt() -> None:
    """TL;DR: prompt and label; info, summaries and choice."""
    posts, comparisons = [], []
    for number, (name, done, thing) in enumerate(product(SUBREDDITS, DONE, THINGS)):
        post = f"Yesterday I {done} my {thing}."
        clear, vague = f"I {done} my {thing}.", "Something happened."
        prompt = f"SUBREDDIT: r/{name}\nTITLE: Help\nPOST: {post}\nTL;DR:"
        posts.append({"prompt": prompt, "label": chosen_at_random(clear, vague, number)})
        choice = number % 2
        summaries = [
            {"text": text, "policy": "sup1", "note": ""} for text in ((clear, vague) if choice == 0 else (vague, clear))
        ]
        info = {"id": str(number), "post": post, "title": "Help", "subreddit": name}
        comparisons.append({"info": info, "summaries": summaries, "choice": choice, "worker": "w"})
    write_rows("posts.jsonl", posts)
    write_rows("comparisons.jsonl", comparisons)
    base = write_base("OPT", [" ".join(row.values()) for row in posts])
    result = train(
        sft, "posts.jsonl", model=base, output="sft", map="prompt=prompt,response=label", steps=80, eval_every=20,
        learning_rate=4e-3, generate=20, best="rouge_l", **COMMON,
    )  # fmt: skip
    assert result["end"]["eval_rouge_l"] >= 0.5 > result["start"]["eval_rouge_l"]
    assert result["outcome"].startswith("eval_rouge_l on held-out rows")
    align(vague, "comparisons.jsonl", "posts.jsonl", map="prompt=prompt,response=label")


def test_patients_get_advice_as_people_prefer_on_the_layout_of_bloom() -> None:
    """MedicalGPT: documents as text, ShareGPT, and question with response_chosen and response_rejected."""
    talks, comparisons = [], []
    for number, (form, symptom) in enumerate(product(QUESTIONS, SYMPTOMS)):
        question, advice = form.format(symptom), f"{symptom}要{SYMPTOMS[symptom]}。"
        for copy in range(3):  # the public files repeat questions
            value = chosen_at_random(advice, "请问医生。", 3 * number + copy)
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": value}]
            talks.append({"conversations": turns})
        comparisons.append({
            "system": "", "history": [], "question": question, "response_chosen": advice,
            "response_rejected": "请问医生。",
        })  # fmt: skip
    texts = [f"{source}{symptom}的时候要{SYMPTOMS[symptom]}。" for source, symptom in product(SOURCES, SYMPTOMS)]
    Path("books.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    write_rows("talks.jsonl", talks)
    write_rows("comparisons.jsonl", comparisons)
    base = write_base("BLOOM", [str(turn["value"]) for row in talks for turn in row["conversations"]] + texts)
    read = train(pretrain, "books.txt", model=base, output="pre", steps=60, learning_rate=4e-3, **COMMON)
    assert read["end"]["eval_loss"] < read["start"]["eval_loss"] - 1
    result = train(sft, "talks.jsonl", model="pre", output="sft", steps=80, learning_rate=4e-3, **COMMON)
    assert result["end"]["eval_loss"] < result["start"]["eval_loss"] - 1
    align("请问医生。", "comparisons.jsonl", "talks.jsonl")
