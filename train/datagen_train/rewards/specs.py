"""Rewards: whatever scores an answer, behind TRL's reward-function protocol, alone or as a weighted sum.

    f(prompts, completions, completion_ids, **columns, trainer_state, log_extra, log_metric) -> list[float | None]

It may be async. `prompts` are strings or conversations, `completions` strings or lists of one message to match, and
`columns` what the rows hold beside: `response`, and every field of the input that is not ours.

    FOLDER                         a reward model of `datagen train reward`: its contract says how it is to be asked
    classifier:PATH#LABEL          any sequence classifier, with its own tokenizer; the logit of LABEL
    classifier:PATH#LABEL,logprob  the log-probability of LABEL
    file.py:NAME                   a function of yours
    verifier:NAME                  a checker of answers: 1, 0, or none where it does not know
    judge:MODEL, or                a language model: a point for each statement of a rubric that it finds true
    judge:RUBRIC=MODEL
    http://... https://...         POST {"prompts", "responses"}, answered by {"rewards"}

A weight stands before it: `--reward rm --reward 0.5*verifier:answer`. Everything gets text, never token ids: another
tokenizer numbers them otherwise.

A part without a score (None, or a number that is none) leaves its answer out of training, and it is counted; it never
becomes a 0, which would be an opinion. An exception ends the run: it says nothing about any answer.
"""

import asyncio
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import Ids, in_batches, inference_mode
from datagen.llm.local.weights import weights_digest
from datagen.records.record import Messages, Record, Text, request_text
from datagen_train.errors import TrainingStopped
from datagen_train.models.scoring import CONTRACT, load_reward
from datagen_train.rewards.judge import JudgeReward
from datagen_train.rewards.service import Endpoint, Score, first_line, said

WHAT = (
    "What scores answers: FOLDER, classifier:PATH#LABEL, file.py:NAME, verifier:NAME, judge:MODEL, http://... "
    "A weight may stand before it, 0.5*FOLDER; repeat it to add rewards up."
)
"""The help of --reward."""
RewardFunction = Callable[..., Any]
"""TRL's protocol; returns scores, or what they are awaited from."""
WEIGHT = re.compile(r"(-?\d+(?:\.\d*)?|-?\.\d+)\*(.+)", re.DOTALL)
BATCH, MOST_TOKENS = 64, 1 << 15
"""Texts, and padded tokens, that a classifier looks at together."""
MOST_UNSCORED = 0.5
"""Share of a batch's answers beyond which there is nothing to learn from."""


class RewardModelReward:
    """A reward model of ours, asked as it was trained."""

    def __init__(self, folder: str) -> None:
        self._model = load_reward(Path(folder))

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        return list(self._model.score(list(prompts), [said(each) for each in completions]))


class Classifier:
    """A sequence classifier. It is shown the answer alone: its tokenizer adds the tokens that it was trained with."""

    def __init__(self, path: str, label: str) -> None:
        """`label` is a name or a number, with `,logprob` behind it for the log-probability."""
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise InputError(f"--reward classifier:{path}: cannot be loaded: {first_line(error)}") from error
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        name, _, kind = label.partition(",")
        if kind not in ("", "logprob"):
            raise InputError(f"--reward classifier:{path}#{label}: behind the label only ,logprob may stand")
        self._log_prob = bool(kind)
        self._label = pick_label(path, name, {int(i): str(n) for i, n in model.config.id2label.items()})
        known = getattr(model.config, "max_position_embeddings", None)
        self._longest = min(known or self._tokenizer.model_max_length, self._tokenizer.model_max_length)

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        texts = [said(each) for each in completions]
        ids = [self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"] for text in texts]
        scores: list[Score] = [None] * len(texts)
        seen = [i for i, each in enumerate(ids) if each]  # without a token there is nothing to judge
        with inference_mode(self._model):
            for of_seen in in_batches([len(ids[i]) for i in seen], BATCH, MOST_TOKENS):
                batch = [seen[i] for i in of_seen]
                padded = self._tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
                logits = self._model(**padded.to(self._model.device)).logits.float()
                picked = (logits.log_softmax(-1) if self._log_prob else logits)[:, self._label]
                for i, score in zip(batch, picked.tolist(), strict=True):
                    scores[i] = score
        return scores


def pick_label(path: str, name: str, names: Mapping[int, str]) -> int:
    """Return a label's number; the only one may go without a name."""
    if name in names.values():
        return next(i for i, each in names.items() if each == name)
    if name.isdecimal() and int(name) in names:
        return int(name)
    if not name and len(names) == 1:
        return 0
    told = ", ".join(names.values())
    raise InputError(f"--reward classifier:{path}#{name}: name one of its labels: {told}")


class Verifier:
    """A checker of answers as a reward: 1 for right, 0 for wrong, none where it does not know."""

    def __init__(self, name: str) -> None:
        from datagen.verify import pick_verifier

        self._verify = pick_verifier(name)

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Any], record: Sequence[Record], **_: Any
    ) -> list[Score]:
        verdicts = [self._verify(row, said(each)) for row, each in zip(record, completions, strict=True)]
        return [None if verdict is None else float(verdict) for verdict in verdicts]


def function_in(path: str, name: str) -> RewardFunction:
    """Import a function from a file that was named on the command line."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"--reward {path}:{name}: no such file {path}")
    spec = importlib.util.spec_from_file_location(f"reward_{file.stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--reward {path}:{name}: {path} cannot be imported: {error!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        defined = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value))
        raise InputError(f"--reward {path}:{name}: no function {name} there (found: {defined or 'none'})")
    made: RewardFunction = function
    return made


def load_function(spec: str) -> RewardFunction:
    """Return the reward that a spec names, as a function of TRL's protocol."""
    scheme, _, rest = spec.partition(":")
    if scheme in ("http", "https"):
        return Endpoint(spec)
    if scheme == "classifier":
        path, _, label = rest.partition("#")
        return Classifier(path, label)
    if scheme == "verifier":
        return Verifier(rest)
    if scheme == "judge":
        return JudgeReward(rest)
    path, _, name = spec.rpartition(":")
    if path.endswith(".py"):
        return function_in(path, name)
    if (Path(spec) / CONTRACT).is_file():
        return RewardModelReward(spec)
    raise InputError(
        f"--reward {spec}: not a reward model's folder (no {CONTRACT} in it). Expected FOLDER, classifier:PATH#LABEL, "
        "file.py:NAME, verifier:NAME, judge:MODEL or http://..."
    )


def split_weight(spec: str) -> tuple[float, str]:
    """Split `0.5*NAME`; the weight is 1 where none is given."""
    found = WEIGHT.fullmatch(spec)
    return (float(found[1]), found[2]) if found else (1.0, spec)


def identity(specs: Iterable[str]) -> list[str]:
    """Name rewards by what is in their files: a retrained or edited one makes another run."""
    return [f"{spec} {content_digest(split_weight(spec)[1])}".strip() for spec in specs]


def content_digest(spec: str) -> str:
    if spec.startswith("judge:"):
        return JudgeReward(spec.removeprefix("judge:")).judge_key
    path = Path(spec.removeprefix("classifier:").partition("#")[0])
    if path.is_dir():
        return weights_digest(path)
    file = Path(spec.rpartition(":")[0])
    if file.suffix == ".py" and file.is_file():
        from hashlib import sha256

        return sha256(file.read_bytes()).hexdigest()
    return ""


@dataclass
class Scored:
    """What the rewards said of a batch of answers."""

    total: list[Score]
    """The weighted sums; none where a part is missing."""
    parts: dict[str, list[Score]]
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """What the functions logged, one value an answer."""
    metrics: dict[str, float] = field(default_factory=dict)


class Rewards:
    """A weighted sum of rewards. To be used in a `with`, since a judge holds on to a journal."""

    def __init__(self, specs: Sequence[str]) -> None:
        if not specs:
            raise InputError("--reward: name what scores the answers, such as a reward model's folder")
        split = [split_weight(spec) for spec in specs]
        self.weights = [weight for weight, _ in split]
        self.names = [name for _, name in split]
        self.functions = [load_function(name) for name in self.names]

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(self, *_: object) -> None:
        for function in self.functions:
            if isinstance(function, JudgeReward):
                function.close()

    @property
    def judges(self) -> str:
        """How far the judges among them can be believed."""
        return "; ".join(each.belief for each in self.functions if isinstance(each, JudgeReward))

    def score(
        self, rows: Sequence[Record], answers: Sequence[str], ids: Sequence[Ids], trainer_state: Any = None
    ) -> Scored:
        """Score an answer to each row; `ids` are the answers' tokens. Raise TrainingStopped where a reward fails."""
        made = Scored([], {})
        given: dict[str, Any] = {
            "prompts": [row.prompt for row in rows],
            "completions": [in_form(row.prompt, answer) for row, answer in zip(rows, answers, strict=True)],
            "completion_ids": list(ids),
            "trainer_state": trainer_state,
            "log_extra": lambda name, values: made.extra.__setitem__(name, list(values)),
            "log_metric": lambda name, value: made.metrics.__setitem__(name, float(value)),
            **columns(rows),
        }
        for name, function in zip(self.names, self.functions, strict=True):
            made.parts[name] = checked(name, call(name, function, given), len(rows))
        made.total = [weighted(self.weights, parts) for parts in zip(*made.parts.values(), strict=True)]
        return made


def in_form(prompt: Text, answer: str) -> str | Messages:
    """Give an answer the form of its prompt, as TRL does."""
    return answer if isinstance(prompt, str) else [{"role": "assistant", "content": answer}]


def columns(rows: Sequence[Record]) -> dict[str, list[Any]]:
    """Lay out what rows hold beside their prompts."""
    names = {name for row in rows for name in row.extra} - {"prompts", "completions", "completion_ids"}
    beside = {name: [row.extra.get(name) for row in rows] for name in sorted(names)}
    return beside | {"response": [row.response for row in rows], "record": list(rows)}


def call(name: str, function: RewardFunction, given: Mapping[str, Any]) -> Any:
    """Call a reward, which may be async; end the run in one line where it fails."""
    try:
        scores = function(**given)
        return asyncio.run(awaited(scores)) if inspect.isawaitable(scores) else scores
    except DatagenError:
        raise
    except Exception as error:
        raise TrainingStopped(f"reward {name}: failed with {error!r}; nothing was learned from it") from error


async def awaited(scores: Any) -> Any:
    return await scores


def checked(name: str, scores: Any, expected: int) -> list[Score]:
    """Take only numbers for scores; what is none, or not a number, is no score."""
    listed = scores.tolist() if isinstance(scores, torch.Tensor) else list(scores)
    if len(listed) != expected:
        raise TrainingStopped(f"reward {name}: returned {len(listed)} scores for {expected} answers")
    wrong = next((each for each in listed if each is not None and not isinstance(each, int | float)), None)
    if wrong is not None:
        raise TrainingStopped(f"reward {name}: returned {wrong!r}, which is no number")
    return [float(each) if each is not None and math.isfinite(each) else None for each in listed]


def weighted(weights: Sequence[float], scores: Sequence[Score]) -> Score:
    """Add scores up; none where one is missing."""
    if any(score is None for score in scores):
        return None
    return sum(weight * (score or 0.0) for weight, score in zip(weights, scores, strict=True))


def texts_of(rows: Iterable[Record]) -> Iterable[str]:
    """Return the words of the rows' prompts."""
    return (request_text(row.prompt) for row in rows)
