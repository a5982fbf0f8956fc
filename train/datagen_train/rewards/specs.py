"""`--reward`: the spec of a reward, and the weighted sum of several.

    FOLDER                         a reward model of `datagen train reward` (reward_model.py)
    classifier:PATH#LABEL          any sequence classifier, with its own tokenizer: the logit of LABEL (classifier.py)
    classifier:PATH#LABEL,logprob  the log-probability of LABEL
    classifier:PATH#LABEL,chat     of prompt and answer, as public reward models are asked
    FILE.py:NAME                   a function of yours, or the name that a package registers for one (functions.py)
    verifier:NAME                  a verifier of answers: 1, 0, or no score where it does not know (functions.py)
    judge:MODEL, or                a language model: one point for each statement of a rubric that holds (judge.py)
    judge:RUBRIC=MODEL
    http://... https://...         a service: POST {"prompts", "responses"} returns {"rewards"} (functions.py)

A weight may stand before it: `--reward rm --reward 0.5*verifier:answer`.

An answer for which one of the rewards has no score has no score at all: it is left out of training and counted. It
never gets a 0, which would be an opinion.
"""

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import Ids
from datagen.llm.local.weights import CONTRACT, weights_digest
from datagen.plugins import Plugin, find_plugin, kind_of
from datagen.records.record import Record
from datagen.verify import pick_verifier
from datagen_train.data.sources import split_weight as split_weight
from datagen_train.errors import TrainingStopped
from datagen_train.models.reward_model import is_reward_model
from datagen_train.rewards.classifier import Classifier
from datagen_train.rewards.functions import RewardFunction, Score, Service, Verifier
from datagen_train.rewards.judge import JudgeReward
from datagen_train.rewards.reward_model import load_reward

MIN_STD = 1e-8


def load_function(spec: str) -> RewardFunction:
    """Return the reward that a spec without a weight names, as a function of TRL's protocol (functions.py).

    Raises:
        InputError: The spec names no reward, or the reward cannot be loaded.
    """
    scheme, _, rest = spec.partition(":")
    if scheme in ("http", "https"):
        return Service(spec)
    if scheme == "classifier":
        path, _, label = rest.partition("#")
        return Classifier(path, label)
    if scheme == "verifier":
        return Verifier(pick_verifier(rest))
    if scheme == "judge":
        return JudgeReward(rest)
    if is_reward_model(spec):
        return load_reward(spec)
    if plugin := find_plugin("reward", spec):
        return import_function(plugin)
    is_there = Path(spec).is_dir()
    problem = f"not a reward model's folder (no {CONTRACT} in it)" if is_there else "no such folder"
    raise InputError(
        f"--reward {spec}: {problem}. Expected FOLDER, classifier:PATH#LABEL[,chat], "
        "FILE.py:NAME, verifier:NAME, judge:MODEL or http://..."
    )


def import_function(plugin: Plugin) -> RewardFunction:
    """Load a reward function; InputError if it cannot be loaded, or is no function."""
    function: RewardFunction = plugin.load()
    if not callable(function):
        raise InputError(f"--reward {plugin.name}: is {kind_of(function)}, not a function")
    return function


def identity(specs: Iterable[str]) -> list[str]:
    """Return each spec with the digest of what it names: a retrained model or an edited file makes another run."""
    digests = []
    for spec in specs:
        name = split_weight(spec)[1]
        path = Path(name.removeprefix("classifier:").partition("#")[0])
        if name.startswith("judge:"):
            digest = JudgeReward(name.removeprefix("judge:")).judge_key
        elif path.is_dir():
            digest = weights_digest(path)
        else:
            kind = "verifier" if name.startswith("verifier:") else "reward"
            plugin = find_plugin(kind, name.removeprefix("verifier:"))
            digest = plugin.identity if plugin else ""
        digests.append(f"{spec} {digest}".strip())
    return digests


@dataclass
class Scored:
    """The scores of a batch of answers."""

    total: list[Score]
    """The weighted sums; None where a part is missing."""
    parts: dict[str, list[Score]]
    """Name of the reward to its scores, before the weight."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """What the functions logged, one value per answer."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the functions logged, one number per batch."""

    def part_means(self) -> dict[str, float]:
        """Return the mean of each reward over its scores, as metrics; none where there is only one reward."""
        means = {}
        for name, part in self.parts.items() if len(self.parts) > 1 else ():
            scores = [score for score in part if score is not None]
            means[f"reward/{name}"] = sum(scores) / max(1, len(scores))
        return means


class Rewards:
    """A weighted sum of rewards. Use it in a `with`: a judge keeps a journal open.

    Args:
        specs: What `--reward` names, each with or without a weight.

    Raises:
        InputError: There is none, or one cannot be loaded.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        if not specs:
            raise InputError("--reward: name what scores the answers, such as a reward model's folder")
        pairs = [split_weight(spec) for spec in specs]
        self.weights, self.names = [weight for weight, _ in pairs], [name for _, name in pairs]
        if twice := [name for name, times in Counter(self.names).items() if times > 1]:
            raise InputError(f"--reward {twice[0]}: is named twice; give it once, with a weight: '2*{twice[0]}'")
        self.functions = [load_function(name) for name in self.names]
        judges = [function for function in self.functions if isinstance(function, JudgeReward)]
        self.judges = "; ".join(judge.agreement for judge in judges)
        """How far the judges among them agree with people."""

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(self, *_: object) -> None:
        for function in self.functions:
            if isinstance(function, JudgeReward):
                function.close()

    def score(
        self, rows: Sequence[Record], answers: Sequence[str], ids: Sequence[Ids], trainer_state: Any = None
    ) -> Scored:
        """Score one answer to each row.

        Args:
            rows: The rows of the prompts.
            answers: The text of each answer.
            ids: The policy's token ids of each answer; empty lists where there are none.
            trainer_state: The state of the training loop, for reward functions.

        Returns:
            The sums and their parts, one score per answer, in order.

        Raises:
            TrainingStopped: A reward fails, or returns something else than one score per answer.
        """
        scored = Scored([], {})
        answer_form = (
            answer if isinstance(row.prompt, str) else [{"role": "assistant", "content": answer}]
            for row, answer in zip(rows, answers, strict=True)
        )  # as in TRL, an answer has the form of its prompt
        columns = {name for row in rows for name in row.extra} - {"prompts", "completions", "completion_ids"}
        arguments: dict[str, Any] = {
            "prompts": [row.prompt for row in rows],
            "completions": list(answer_form),
            "completion_ids": list(ids),
            "trainer_state": trainer_state,
            "log_extra": lambda name, values: scored.extra.__setitem__(name, list(values)),
            "log_metric": lambda name, value: scored.metrics.__setitem__(name, float(value)),
            **{name: [row.extra.get(name) for row in rows] for name in sorted(columns)},
            "response": [row.response for row in rows],
            "record": list(rows),
        }
        for name, function in zip(self.names, self.functions, strict=True):
            scored.parts[name] = call_reward(name, function, arguments, len(rows))
        for parts in zip(*scored.parts.values(), strict=True):
            missing = any(score is None for score in parts)
            weighted = (weight * (score or 0.0) for weight, score in zip(self.weights, parts, strict=True))
            scored.total.append(None if missing else sum(weighted))
        return scored


def call_reward(name: str, function: RewardFunction, arguments: Mapping[str, Any], answers: int) -> list[Score]:
    """Call a reward, which may be async; return one score per answer, None for what is not a finite number.

    Raises:
        TrainingStopped: The reward raises, or returns something else than one number or None per answer.
    """
    try:
        scores = function(**arguments)
        if inspect.isawaitable(scores):
            scores = asyncio.run(_await(scores))
    except DatagenError:
        raise
    except Exception as error:
        raise TrainingStopped(f"reward {name}: failed with {error!r}; nothing was learned from it") from error
    listed = scores.tolist() if isinstance(scores, torch.Tensor) else list(scores)
    if len(listed) != answers:
        raise TrainingStopped(f"reward {name}: returned {len(listed)} scores for {answers} answers")
    for score in listed:
        if score is not None and not isinstance(score, int | float):
            raise TrainingStopped(f"reward {name}: returned {score!r}, which is no number")
    return [float(score) if score is not None and math.isfinite(score) else None for score in listed]


async def _await(scores: Any) -> Any:
    return await scores


@dataclass
class RunningStd:
    """The standard deviation of all scores so far (Welford's algorithm); scores are scaled by it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: list[float]) -> float:
        """Take in scores; return the standard deviation of all so far, or 1 where they do not vary."""
        for value in values:
            self.count += 1
            step = value - self.mean
            self.mean += step / self.count
            self.squares += step * (value - self.mean)
        std = (self.squares / self.count) ** 0.5 if self.count > 1 else 0.0
        return std if std > MIN_STD else 1.0
