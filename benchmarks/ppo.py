"""PPO: the cost of an update against the sum of its parts and against TRL 1.12's PPO, and its memory.

    python -m benchmarks.ppo [--quick] [--trl112 PYTHON]

Processor seconds of one thread. An update answers 128 prompts, runs policy, critic and reference over the answers,
scores them with a classifier, and trains for 2 epochs of 2 minibatches. The parts are also timed separately at the same
sizes; the difference is the cost of the loop around them. TRL removed its PPO after 1.12, so that runs in an
environment of its own, named with --trl112 (a Python that finds trl 1.12), on the same models, prompts and sizes.
Memory: bytes of weights, gradients and optimiser states of one trunk with adapters and a value head, against policy,
reference, critic and reward model as four models.
"""

import json
import os

from datagen_train.policy_options import PpoOptions

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # before torch is imported

import statistics
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.common import Line, in_fresh_process, main
from benchmarks.training import in_a_folder
from tests.train.tasks import biased, problems, write_sft

PROMPTS, TOKENS, EPOCHS, MINIBATCHES, ROWS = 128, 8, 2, 2, 2000
RATE = 3e-4
OTHER = Path(__file__).with_name("ppo_trl112.py")


def prepare() -> None:
    """Train the initial model, make the classifier (reward and critic), and write the prompts."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from datagen_train import sft
    from datagen_train.run.trl_adapter import quiet_libraries
    from tests.train.runs import train

    quiet_libraries()
    write_sft(Path("sums.jsonl"), problems(0)[:ROWS])
    write_sft(Path("biased.jsonl"), biased(problems(0)[:ROWS], 0))
    train(sft, "biased.jsonl", output="base", model="tiny:hidden=128", steps=60, eval_every=60)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained("base", num_labels=1)
    classifier.save_pretrained("rm")
    AutoTokenizer.from_pretrained("base").save_pretrained("rm")


def ppo_options(critic: str) -> Any:

    return PpoOptions(
        reward=["classifier:rm"], critic=critic, max_tokens=TOKENS, ppo_epochs=EPOCHS, minibatches=MINIBATCHES
    )


def our_update(critic: str, steps: int) -> float:
    """Return the processor seconds of one of our updates."""
    from datagen_train import ppo
    from tests.train.runs import train

    prepare()
    options: dict[str, Any] = {"log_every": 50, "held_out": 0, "save_every": 10**6, "learning_rate": RATE}
    train(
        ppo, "sums.jsonl", ppo_options(critic), output="out", model="base", steps=steps, batch_size=PROMPTS, **options
    )
    return float(json.loads(Path("out/run/report.json").read_text())["run"]["cpu_seconds_training"]) / steps


def parts(_: str, times: int) -> dict[str, float]:
    """Return the processor seconds of each part of an update, timed separately."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from datagen.records.record import Record
    from datagen_train.data.encode import Encoder
    from datagen_train.models.actor_critic import ActorCritic, Distribution, load_critic
    from datagen_train.ppo import masked_mean, policy_terms, value_terms
    from datagen_train.rewards.specs import Rewards
    from datagen_train.run.rollout import sample, score_tokens

    prepare()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained("base")
    policy = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
    reference = deepcopy(policy).eval().requires_grad_(False)
    model = ActorCritic(policy, *load_critic("rm", tokenizer.get_vocab()), Distribution())
    rewards = Rewards(["classifier:rm"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    encoder = Encoder(tokenizer, {tokenizer.eos_token_id}, 512)
    sums = problems(0)[:PROMPTS]
    ids = [list(encoder.preference(prompt, str(n), str(n + 1)).prompt) for prompt, n in sums]
    records = [Record(str(i), prompt, str(n)) for i, (prompt, n) in enumerate(sums)]
    seconds: dict[str, list[float]] = {"answer": [], "forward": [], "score": [], "learn": []}
    for turn in range(times):
        began = process_time()
        completions = sample(
            model.policy, tokenizer, model.distribution, ids, [turn * PROMPTS + i for i in range(PROMPTS)], TOKENS
        )
        seconds["answer"].append(process_time() - began)
        began = process_time()
        rollout = score_tokens(model, reference, records, ids, completions)
        seconds["forward"].append(process_time() - began)
        began = process_time()
        rewards.score(
            records,
            [completion.text for completion in completions],
            [completion.ids for completion in completions],
            None,
        )
        seconds["score"].append(process_time() - began)
        began = process_time()
        for step in range(EPOCHS * MINIBATCHES):
            rows = list(range(step % MINIBATCHES, PROMPTS, MINIBATCHES))
            batch = rollout.batch(rows, torch.device("cpu"))
            width = batch.mask.shape[1]
            output, _loss = model(batch)
            old, values = rollout.log_probs[rows, :width], rollout.values[rows, :width]
            loss = masked_mean(policy_terms(output.log_probs, old, torch.ones_like(old), 0.2).loss, batch.mask)
            errors, _clipped = value_terms(output.values, values, torch.ones_like(values), 0.2)
            (loss + 0.1 * masked_mean(errors, batch.mask)).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
        seconds["learn"].append(process_time() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def trl_update(python: str, steps: int) -> float:
    """Return the processor seconds of an update of TRL 1.12."""
    prepare()
    result = subprocess.run([python, str(OTHER), str(steps)], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return float(result.stdout.split()[-1])


def memory(_: str, __: int) -> dict[str, float]:
    """Return bytes of weights, gradients and optimiser states: shared trunk with adapters, and four models."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    prepare()
    policy = AutoModelForCausalLM.from_pretrained("base")
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    adapted = get_peft_model(policy, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(p.numel() * p.element_size() for p in adapted.parameters() if p.requires_grad)
    head = 4 * policy.config.hidden_size
    return {"shared": weights + trained + 3 * (trained + head), "four": 4 * weights + 2 * 3 * weights}


def measure(quick: bool) -> Iterator[Line]:
    times, runs = (5, 1) if quick else (20, 3)
    rounds = [in_fresh_process(in_a_folder, parts, "", times) for _ in range(runs)]
    ours = statistics.median(in_fresh_process(in_a_folder, our_update, "rm", times) for _ in range(runs))
    summed = statistics.median(sum(seconds_by_part.values()) for seconds_by_part in rounds)
    details = ", ".join(
        f"{name} {statistics.median(seconds_by_part[name] for seconds_by_part in rounds):.3f}" for name in rounds[0]
    )
    yield Line("PPO, an update against its parts", "<= 1.3", f"{ours / summed:.2f}", f"{ours:.3f} s; parts: {details}")
    python = sys.argv[sys.argv.index("--trl112") + 1] if "--trl112" in sys.argv else None
    if python:
        other = statistics.median(in_fresh_process(in_a_folder, trl_update, python, times) for _ in range(runs))
        shared = statistics.median(in_fresh_process(in_a_folder, our_update, "shared", times) for _ in range(runs))
        for critic, seconds in (("own critic", ours), ("shared trunk", shared)):
            details = f"{seconds:.3f} s, {other:.3f} s"
            yield Line(f"PPO, an update against TRL 1.12's: {critic}", "<= 0.6", f"{seconds / other:.2f}", details)
    sizes = in_fresh_process(in_a_folder, memory, "", 0)
    share = sizes["shared"] / sizes["four"]
    yield Line(
        "PPO, one trunk with adapters against four models", "", f"{share:.2f}", "weights, gradients, Adam states"
    )


if __name__ == "__main__":
    main(measure)
