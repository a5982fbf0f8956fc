"""SFT and DPO against TRL called directly and against a plain torch loop, in processor seconds of one thread.

    python -m benchmarks.training [--quick]

Each runs in a fresh process: the same rows, the same initial model, batch 32, float32, no checkpointing, no packing,
logging every 50 steps, no evaluation and no saving. Preparation (reading, tokenising) is left out: the clock runs from
the first step to the last.
"""

import json
import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # before torch is imported

import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.common import Line, T, in_fresh_process, main
from tests.train.tasks import problems, write_preferences, write_sft

BATCH, ROWS = 32, 2000
SETTINGS: dict[str, Any] = {
    "output_dir": "trl", "per_device_train_batch_size": BATCH, "bf16": False, "use_cpu": True,
    "gradient_checkpointing": False, "logging_steps": 50, "save_strategy": "no", "report_to": "none",
    "disable_tqdm": True, "dataloader_pin_memory": False, "lr_scheduler_type": "cosine",
}  # fmt: skip


def start() -> tuple[Any, Any]:
    """Make the initial model of all three."""
    import torch

    from datagen_train.models.tiny import make_tiny
    from datagen_train.run.trl_adapter import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    texts = (text for prompt, answer in problems(0)[:ROWS] for text in (prompt, str(answer)))
    return make_tiny("tiny:hidden=128", texts, 0)


def prepare() -> None:
    """Write the data and the model in the working folder."""
    write_sft(Path("sums.jsonl"), problems(0)[:ROWS])
    write_preferences(Path("prefs.jsonl"), problems(0)[:ROWS])
    model, tokenizer = start()
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")


def ours(trainer: str, steps: int) -> float:
    from datagen_train import dpo, sft
    from tests.train.runs import train

    prepare()
    module, data = {"sft": (sft, "sums.jsonl"), "dpo": (dpo, "prefs.jsonl")}[trainer]
    train(module, data, output="out", model="base", steps=steps, log_every=50, held_out=0, save_every=10**6)
    report = json.loads(Path("out/run/report.json").read_text())
    return float(report["run"]["cpu_seconds_training"])


def trl(trainer: str, steps: int) -> float:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    prepare()
    model, tokenizer = start()
    prompts = [{"role": "user", "content": prompt} for prompt, _ in problems(0)[:ROWS]]
    answers = [int(answer) for _, answer in problems(0)[:ROWS]]
    rows = [
        {"prompt": [a], **({"completion": say(n)} if trainer == "sft" else {"chosen": say(n), "rejected": say(n + 1)})}
        for a, n in zip(prompts, answers, strict=True)
    ]
    data = Dataset.from_list(rows)
    if trainer == "sft":
        trl_trainer = SFTTrainer(
            model, SFTConfig(max_steps=steps, **SETTINGS), train_dataset=data, processing_class=tokenizer
        )
    else:
        model.config._name_or_path = str(Path("base").resolve())
        config = DPOConfig(max_steps=steps, precompute_ref_log_probs=steps * BATCH > ROWS, **SETTINGS)
        trl_trainer = DPOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    began = process_time()
    trl_trainer.train()
    return process_time() - began


def say(number: int) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": str(number)}]


def plain(trainer: str, steps: int) -> float:
    """A minimal torch loop: the lower bound of the cost."""
    import torch
    from torch.nn.functional import logsigmoid

    from datagen_train.data.encode import Encoder

    model, tokenizer = start()
    encoder = Encoder(tokenizer, {tokenizer.eos_token_id}, 512)
    rows = [encoder.preference(prompt, str(n), str(n + 1)) for prompt, n in problems(0)[:ROWS]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    chance = random.Random(0)

    def tensors(pairs: list[tuple[list[int], list[int]]]) -> tuple[Any, Any, Any]:
        longest = max(len(p) + len(a) for p, a in pairs)
        ids = torch.full((len(pairs), longest), tokenizer.pad_token_id)
        labels, mask = torch.full((len(pairs), longest), -100), torch.zeros((len(pairs), longest), dtype=torch.long)
        for i, (p, a) in enumerate(pairs):
            ids[i, : len(p) + len(a)] = torch.tensor(p + a)
            labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
            mask[i, : len(p) + len(a)] = 1
        return ids, labels, mask

    def scores(batch: tuple[Any, Any, Any]) -> Any:
        ids, labels, mask = batch
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        targets = labels[:, 1:]
        log_probs = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return (log_probs * (targets != -100)).sum(-1)

    def pairs(batch: list[Any]) -> list[tuple[list[int], list[int]]]:
        return [(row.prompt, row.chosen) for row in batch] + [(row.prompt, row.rejected) for row in batch]

    with torch.no_grad():
        reference_scores = (
            torch.cat([scores(tensors(pairs([row]))) for row in rows]).view(-1, 2) if trainer == "dpo" else None
        )
    began = process_time()
    for _ in range(steps):
        chosen = chance.sample(range(ROWS), BATCH)
        batch = [rows[i] for i in chosen]
        if trainer == "sft":
            ids, labels, mask = tensors([(list(row.prompt), list(row.chosen)) for row in batch])
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        else:
            assert reference_scores is not None
            better, worse = scores(tensors(pairs(batch))).chunk(2)
            loss = -logsigmoid(
                0.1 * ((better - worse) - (reference_scores[chosen, 0] - reference_scores[chosen, 1]))
            ).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return process_time() - began


def in_a_folder(run: Callable[[str, int], T], trainer: str, steps: int) -> T:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return run(trainer, steps)


def measure(quick: bool) -> Iterator[Line]:
    for trainer, steps in (("sft", 30 if quick else 150), ("dpo", 20 if quick else 100)):
        rounds = [
            {run.__name__: in_fresh_process(in_a_folder, run, trainer, steps) for run in (ours, trl, plain)}
            for _ in range(1 if quick else 3)
        ]
        median = {name: statistics.median(costs[name] for costs in rounds) * 1000 / steps for name in rounds[0]}
        speedup = {name: value / median["ours"] for name, value in median.items()}
        details = ", ".join(f"{name} {value:.0f}" for name, value in median.items())
        yield Line(
            f"{trainer}, ms of one core a step of {BATCH}",
            "≥ 1.0 × TRL's speed",
            f"{speedup['trl']:.2f} × TRL, {speedup['plain']:.2f} × plain loop; {details}",
            "TRL's own step: the collator, its metrics, the fused head",
        )


if __name__ == "__main__":
    main(measure)
