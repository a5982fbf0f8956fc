"""The K-wise reward model against pairs, in comparisons per processor second of one thread, at K = 4.

    python -m benchmarks.reward [--quick]
    python -m benchmarks.reward --accuracy

Each runs in a fresh process: the same prompts, answers and initial model, float32, no checkpointing, 192 comparisons a
step, no evaluation and no saving. TRL's RewardTrainer gets the comparisons as pairs, already tokenised, and so does our
own trainer ("flat"), which shows the share of the ratio that comes from K. The clock runs from the first step to the
last. With --accuracy: held-out accuracy of three seeds, as tests/train/test_reward_model.py measures it.
"""

import json
import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # before torch is imported

import statistics
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

from benchmarks.common import Line, in_fresh_process, main
from benchmarks.training import SETTINGS, in_a_folder, start
from tests.train.tasks import problems

K, PROMPTS, ROWS = 4, 32, 2000
PAIRS = PROMPTS * K * (K - 1) // 2
"""Comparisons a step."""


def rankings() -> list[tuple[str, list[str]]]:
    """Return prompts with K answers each, best first: the right number, then wrong ones."""
    chance = Random("rankings")
    return [
        (prompt, [str(n), *map(str, chance.sample([wrong for wrong in range(19) if wrong != n], K - 1))])
        for prompt, n in problems(0)[:ROWS]
    ]


def prepare(k_wise: bool) -> Path:
    """Write the initial model, and the rows as rankings or as pairs."""
    model, tokenizer = start()
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")
    rows: list[dict[str, Any]] = []
    for prompt, answers in rankings():
        if k_wise:
            rows.append({"prompt": prompt, "responses": answers, "ranks": list(range(1, K + 1))})
        else:
            rows += [{"prompt": prompt, "chosen": one, "rejected": other} for one, other in combinations(answers, 2)]
    path = Path("rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ours(_: str, steps: int, k_wise: bool = True) -> float:
    from datagen_train import reward as reward_model
    from tests.train.runs import train

    batch = PROMPTS if k_wise else PAIRS
    options: dict[str, Any] = {"log_every": 50, "held_out": 0, "save_every": 10**6, "batch_size": batch}
    train(reward_model, prepare(k_wise), output="out", model="base", steps=steps, **options)
    return float(json.loads(Path("out/run/report.json").read_text())["run"]["cpu_seconds_training"])


def flat(_: str, steps: int) -> float:
    return ours(_, steps, k_wise=False)


def trl(_: str, steps: int) -> float:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    from datagen_train.data.encode import Encoder
    from datagen_train.data.rankings import scored_ids

    prepare(k_wise=False)
    _, tokenizer = start()
    encoder = Encoder(tokenizer, {tokenizer.eos_token_id}, 512)
    columns: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    for prompt, answers in rankings():
        for pair in combinations([scored_ids(encoder, prompt, answer)[0] for answer in answers], 2):
            for column, ids in zip(columns.values(), pair, strict=True):
                column.append(list(ids))
    settings = {**SETTINGS, "per_device_train_batch_size": PAIRS, "max_length": None}
    trainer = RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained("base", num_labels=1),
        args=RewardConfig(max_steps=steps, **settings),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(columns),
    )
    began = process_time()
    trainer.train()
    return process_time() - began


def measure(quick: bool) -> Iterator[Line]:
    if "--accuracy" in sys.argv:
        yield accuracies()
        return
    steps = 10 if quick else 40
    rounds = [
        {run.__name__: in_fresh_process(in_a_folder, run, "reward", steps) for run in (ours, flat, trl)}
        for _ in range(1 if quick else 3)
    ]
    rate = {name: steps * PAIRS / statistics.median(round_rates[name] for round_rates in rounds) for name in rounds[0]}
    details = ", ".join(f"{name} {value:.0f}" for name, value in rate.items())
    yield Line(
        f"reward model, comparisons per second of one core, K = {K}",
        "≥ 2 × the pairwise trainer",
        f"{rate['ours'] / rate['trl']:.2f} × TRL, {rate['ours'] / rate['flat']:.2f} × our own on pairs; {details}",
        f"{K} forwards for {K * (K - 1) // 2} comparisons: at most {K - 1} ×",
    )


def accuracies() -> Line:
    from tests.train.test_reward_model import accuracy_from_sft

    reached = [in_fresh_process(in_a_folder_by_seed, accuracy_from_sft, seed) for seed in (0, 1, 2)]
    details = ", ".join(f"{accuracy:.3f}" for accuracy in reached)
    return Line("reward model, held-out accuracy of three seeds", "≥ 0.85", details, "0.13 M parameters, 400 steps")


def in_a_folder_by_seed(run: Callable[[int], float], seed: int) -> float:
    return in_a_folder(lambda _, number: run(number), "", seed)


if __name__ == "__main__":
    main(measure)
