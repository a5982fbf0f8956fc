"""What training on a policy's own answers needs of the library's loop beyond what it has: measuring by answering,
metrics of whole iterations, samples to read, and checkpoints that hold everything that another step depends on.

A checkpoint has the trained weights of policy and critic (`trained.safetensors`) and the rest of what was learned along
the way (`state.json`), beside the library's optimiser, schedule and place in the data. Chance needs no saving: every
draw depends on seed, step and row alone.
"""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

from datagen.llm.local.generation import Generated, Ids, generate
from datagen.records.files import dump_line
from datagen.records.record import Record
from datagen_train.data.encode import Encoded
from datagen_train.errors import TrainingStopped
from datagen_train.models.actor_critic import ActorCritic, save_value
from datagen_train.ppo_loss import KlController, RunningSpread
from datagen_train.rewards.specs import Rewards
from datagen_train.run.alarms import Alarms
from datagen_train.run.session import Session
from datagen_train.tools.evaluate import Answers, measure

TRAINED, STATE = "trained.safetensors", "state.json"
HELD_OUT = 64
"""Held-out prompts that are answered at a measurement, where --generate does not say."""
SAMPLES = 4
"""Rollouts written down at every log."""


@dataclass(frozen=True)
class Asked:
    """A row, its prompt as the model gets it, and the prompt with an answer, for the checks."""

    row: Record
    prompt: Ids
    turn: Encoded


def measure_answers(rewards: Rewards, rows: list[Record], made: list[Generated], state: Any) -> dict[str, float]:
    """Measure answers to held-out prompts: their reward, and exact match where it is known what is right."""
    scored = rewards.score(rows, [each.text for each in made], [each.ids for each in made], state)
    known = [score for score in scored.total if score is not None]
    if not known:
        raise TrainingStopped(f"--reward: none of {len(made)} answers to held-out prompts got a score")
    metrics = {
        "eval_reward": fmean(known),
        "eval_unscored": float(len(made) - len(known)),
        "eval_ended": fmean(each.finish_reason == "stop" for each in made),
        "eval_response_length": fmean(len(each.ids) for each in made),
    }
    right = [(row, one) for row, one in zip(rows, made, strict=True) if row.response is not None]
    if right:
        compared = measure(Answers([row for row, _ in right], [one for _, one in right]))
        metrics |= {f"eval_{name}": value for name, value in compared.items()}
    return metrics


def append_samples(path: Path, step: int, samples: list[dict[str, Any]]) -> None:
    """Write down what the policy said at a step."""
    with path.open("ab") as file:
        file.writelines(dump_line({"step": step, **sample}) for sample in samples[:SAMPLES])


def rewind_samples(path: Path, step: int) -> None:
    """Drop what was written after a step."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        path.write_bytes(b"".join(kept))


class OnPolicy(Trainer):
    """A trainer whose step is an iteration: rollout and learning."""

    model: ActorCritic

    def __init__(
        self, session: Session, model: ActorCritic, args: TrainingArguments, rewards: Rewards, max_tokens: int,
        train: list[Asked], held_out: list[Asked], *, kl: KlController,
    ) -> None:  # fmt: skip
        self.session, self.rewards, self.max_tokens = session, rewards, max_tokens
        self.asked, self.held_out = train, held_out[: session.options.generate or HELD_OUT]
        self.kl, self.spread, self.alarms = kl, RunningSpread(), Alarms(kl.target)
        self.pending: dict[str, list[float]] = defaultdict(list)
        """Metrics of the iterations since the last log."""
        rows = [{"row": torch.tensor(i)} for i in range(len(train))]
        super().__init__(
            model=model,
            args=args,
            data_collator=lambda each: {"row": torch.stack([one["row"] for one in each])},
            train_dataset=rows,
            eval_dataset=rows[:1] if held_out else None,  # `evaluate` looks at self.held_out
            processing_class=session.loaded.tokenizer,
        )

    def add_up(self, sums: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return self.accelerator.reduce(sums, "sum") if self.args.world_size > 1 else sums

    def note(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Keep an iteration's metrics for the next log, tell what is alarming, return the means over all processes."""
        shared = self.add_up(torch.tensor(list(metrics.values()), device=self.args.device)) / self.args.world_size
        metrics = dict(zip(metrics, shared.tolist(), strict=True))
        for name, value in metrics.items():
            self.pending[name].append(value)
        for text in self.alarms.iteration(step, metrics):
            self.session.terminal.say(text)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means over the iterations since the last log; the library knows but the last step of each."""
        if "loss" in logs:
            logs |= {name: fmean(values) for name, values in self.pending.items()}
            self.pending.clear()
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer held-out prompts greedily; return their reward, and exact match where it is known what is right."""
        step, rows = self.state.global_step, [each.row for each in self.held_out]
        metrics = measure_answers(self.rewards, rows, self._answer_greedily(), self.state)
        self.log(metrics)
        for text in self.alarms.measurement(step, metrics):
            self.session.terminal.say(text)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _answer_greedily(self) -> list[Generated]:
        return generate(
            self.model.policy,
            self.session.loaded.tokenizer,
            [each.prompt for each in self.held_out],
            max_tokens=self.max_tokens,
            suppressed=self.model.distribution.suppressed,
        )

    def write_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Write down what the policy says, at every log."""
        if self.is_world_process_zero() and step % self.args.logging_steps == 0:
            append_samples(self.samples, step, samples)

    @property
    def samples(self) -> Path:
        return self.session.folder.run / "samples.jsonl"

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a checkpoint if the library asks, else the policy, ready to be used, and its critic."""
        folder = Path(output_dir or self.args.output_dir)
        if not self.args.should_save:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if _internal_call:
            trained = {name: p.detach().contiguous() for name, p in self._trained()}
            save_file(trained, folder / TRAINED)
            (folder / STATE).write_text(json.dumps(self._state()))
            return
        policy: Any = self.model.policy
        policy.save_pretrained(folder)
        self.session.loaded.tokenizer.save_pretrained(folder)
        save_value(self.model, folder / "value")

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def _state(self) -> dict[str, Any]:
        learned = {"kl": asdict(self.kl), "spread": asdict(self.spread), "alarms": asdict(self.alarms)}
        return {**learned, "pending": self.pending}

    def _load_weights(self, checkpoint: Path) -> None:
        weights = load_file(checkpoint / TRAINED)
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(weights[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self._load_weights(folder)
        state = json.loads((folder / STATE).read_text())
        self.kl, self.spread = KlController(**state["kl"]), RunningSpread(**state["spread"])
        self.alarms = Alarms(**state["alarms"])
        self.pending = defaultdict(list, state["pending"])
        if self.is_world_process_zero():
            rewind_samples(self.samples, int(folder.name.rpartition("-")[2]))

    def _load_best_model(self) -> None:
        self._load_weights(Path(str(self.state.best_model_checkpoint)))
