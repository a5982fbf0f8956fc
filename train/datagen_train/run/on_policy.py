"""What PPO and GRPO share: both train on answers that the policy itself samples, scored by rewards.

Before training: prompts as the policy is given them, and the tokens that end an answer or are never sampled. While
training: the rule for answers without a score, measurements on held-out prompts, alarms, and samples to read.

Checkpoints hold no random state: every draw depends on the seed, the step and the row alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from accelerate.utils import gather_object

from datagen.errors import InputError
from datagen.llm.local.generation import Generated, Ids, generate
from datagen.records.files import dump_line
from datagen.records.reader import PROMPTS
from datagen.records.record import Record, as_messages, request_text
from datagen_train.data.checks import CheckInput
from datagen_train.data.encode import Encoded
from datagen_train.data.layouts import Layout
from datagen_train.data.split import Split, encode_usable, read_rows
from datagen_train.errors import TrainingStopped, UnusableRow
from datagen_train.models.actor_critic import Distribution
from datagen_train.models.sharding import in_step
from datagen_train.options import ANSWER_METRICS
from datagen_train.rewards.specs import Rewards, Scored
from datagen_train.run.alarms import Alarms
from datagen_train.run.folder import drop_later_lines, step_of
from datagen_train.run.metrics import Answers, measure, most_tokens
from datagen_train.run.progress import ANSWERING, token_counter
from datagen_train.run.schedule import Scheduled
from datagen_train.run.session import Session

Item = TypeVar("Item")
STATE = "state.json"
"""The file of a checkpoint that holds what the trainer learned beside the weights."""
HELD_OUT = 64
"""Held-out prompts answered at a measurement, where --generate does not say."""
SAMPLES = 4
"""Answers written to samples.jsonl at every log."""
MAX_UNSCORED = 0.5
"""Share of a batch's answers without a score, above which training stops."""
PLACEHOLDER = "."
"""Stands for the answer of a row that has none, so that its prompt is encoded as any other."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A row with its prompt as the policy is given it."""

    row: Record
    ids: Ids
    conversation: Encoded
    """The prompt with an answer, for the checks before training."""


def load_policy(
    session: Session, rewards: Rewards, temperature: float, stop_tokens: Sequence[str], suppressed: Sequence[str] = ()
) -> tuple[list[Record], Distribution]:
    """Read the rows, load the policy, and settle which tokens end an answer and which are never sampled.

    Both kinds of tokens are also written to the generation config, which is saved with the policy.

    Returns:
        The rows, and the distribution that answers are sampled from.

    Raises:
        InputError: A token is not in the vocabulary, or a suppressed token is one that ends an answer.
    """
    if rewards.judges:
        session.report_check("judge", rewards.judges)
    rows: list[Record] = session.read()
    loaded = session.load(request_text(row.prompt) for row in rows)
    vocabulary = loaded.tokenizer.get_vocab()
    for flag, tokens in (("--stop-token", stop_tokens), ("--suppress", suppressed)):
        if unknown := [token for token in tokens if token not in vocabulary]:
            raise InputError(f"{flag} {unknown[0]}: is no token of the model's vocabulary")
    settings: Any = loaded.model.generation_config
    session.encoder.ends |= {vocabulary[token] for token in stop_tokens}
    settings.eos_token_id = sorted(session.encoder.ends)
    never = tuple(vocabulary[token] for token in suppressed)
    if ends := session.encoder.ends & set(never):
        names = ", ".join(loaded.tokenizer.convert_ids_to_tokens(sorted(ends)))
        raise InputError(f"--suppress {names}: ends an answer; without it no answer would end")
    settings.suppress_tokens = list(never) or None
    return rows, Distribution(temperature, never)


def encode_prompts(session: Session, rows: Sequence[Record], max_tokens: int) -> Split[Record, EncodedPrompt]:
    """Encode the rows' prompts, drop those too long for an answer of `max_tokens`, and run the checks."""
    room = session.encoder.max_length - max_tokens
    if room < 1:
        raise InputError(f"--max-tokens {max_tokens}: leaves no room for a prompt within --max-length")

    def encode(row: Record) -> list[EncodedPrompt]:
        answer = {"role": "assistant", "content": row.response or PLACEHOLDER}
        conversation = session.encoder.answer([*as_messages(row.prompt), answer], row.tools)
        ids = conversation.ids[: conversation.prompt_length]
        if len(ids) > room:
            raise UnusableRow(f"the prompt leaves no room for --max-tokens {max_tokens}")
        return [EncodedPrompt(row, list(ids), conversation)]

    split = session.encode(rows, encode, Layout(measure=lambda prompt: (len(prompt.ids), 0, False)))
    conversations = [prompt.conversation for prompt in split.train + split.held_out]
    session.check(CheckInput(session.loaded, conversations, session.account))
    return split


def loop_arguments(session: Session, split: Split[Record, EncodedPrompt]) -> dict[str, Any]:
    """Return the arguments of the training loop, in which one step is one iteration on `batch_size` prompts."""
    options, arguments = session.options, session.arguments(split)
    if arguments["metric_for_best_model"] == "eval_loss":
        arguments |= {"metric_for_best_model": "eval_reward", "greater_is_better": True}
    return arguments | {
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "dataloader_drop_last": len(split.train) >= options.batch_size * options.nproc,
        "remove_unused_columns": False,
    }


@dataclass(frozen=True)
class SecondSkill:
    """The rows of `--also`, which show what the policy forgets."""

    rows: list[Record]
    prompts: list[Ids]
    max_tokens: int
    """The most tokens of an answer."""


def read_also(name: str, session: Session) -> SecondSkill:
    """Read the first prompts with responses of a file, as many as are answered at a measurement.

    Raises:
        InputError: The file cannot be read, or no row has a prompt and a response that can be encoded.
    """
    encoder, (rows, _) = session.encoder, read_rows(name, PROMPTS)
    answered = [row for row in rows if row.response and row.label is not False]
    usable, _ = encode_usable(answered, lambda row: [(row, encoder.prompt(row.prompt, row.tools))])
    chosen = usable[: session.options.generate or HELD_OUT]
    if not chosen:
        raise InputError(f"--also {name}: no row has a prompt and a response that can be used")
    session.terminal.say(f"--also: {len(chosen)} prompts of {name} are answered at every measurement")
    return SecondSkill(
        [row for row, _ in chosen], [ids for _, ids in chosen], most_tokens(encoder, [row for row, _ in chosen])
    )


def share(items: Sequence[Item], accelerator: Any) -> list[Item]:
    """Return the part of this process: of N processes every N-th item."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather_shares(part: Sequence[Item], accelerator: Any) -> list[Item]:
    """Return the parts of all processes in the order of the whole: what `share` took apart."""
    if accelerator.num_processes == 1:
        return list(part)
    parts = gather_object([list(part)])
    whole: list[Any] = [None] * sum(map(len, parts))
    for process, items in enumerate(parts):
        whole[process :: len(parts)] = items
    return whole


class OnPolicyTrainer(Scheduled):
    """A training loop on the policy's own answers; a subclass adds the algorithm.

    Args:
        session: The run, with the loaded policy.
        options: The trainer's options; `max_tokens`, `unscored` and `also` are read here.
        split: The encoded prompts.
        rewards: What scores answers.
        arguments: What the library's trainer takes.
    """

    def __init__(
        self, session: Session, options: Any, split: Split[Record, EncodedPrompt], rewards: Rewards, **arguments: Any
    ) -> None:
        super().__init__(fsdp=session.options.fsdp, processing_class=session.loaded.tokenizer, **arguments)
        self.session, self.options, self.rewards, self.alarms = session, options, rewards, Alarms()
        self.prompts, self.held_out = split.train, split.held_out[: session.options.generate or HELD_OUT]
        self.suppressed: tuple[int, ...] = ()
        """Tokens that are never sampled."""
        self.also = read_also(options.also, session) if options.also else None
        self.samples: Path = session.folder.samples

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer the held-out prompts greedily, each process its share.

        Returns:
            The mean reward; where the answer is known, exact match; and those of `--also`.
        """
        mine = share(self.held_out, self.accelerator)
        rows, completions = [prompt.row for prompt in mine], self.answer([prompt.ids for prompt in mine])
        texts, ids = [completion.text for completion in completions], [completion.ids for completion in completions]
        self.session.terminal.phase("scoring")
        scores = self.rewards.score(rows, texts, ids, self.state).total if rows else []
        metrics = self.summarise(gather_shares(list(zip(completions, scores, strict=True)), self.accelerator))
        if self.also:
            metrics |= self.measure_also(self.also)
        self.log(metrics)
        for text in self.alarms.measurement(self.state.global_step, metrics):
            self.session.terminal.say(text)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def answer(self, prompts: Sequence[Ids], max_tokens: int | None = None) -> list[Generated]:
        """Answer prompts greedily, by default with at most `--max-tokens`."""
        loaded, terminal = self.session.loaded, self.session.terminal
        terminal.phase(ANSWERING)
        with in_step(loaded.model):
            return generate(
                loaded.model, loaded.tokenizer, prompts, max_tokens=max_tokens or self.options.max_tokens,
                suppressed=self.suppressed, on_tokens=token_counter(terminal),
            )  # fmt: skip

    def summarise(self, answers: Sequence[tuple[Generated, float | None]]) -> dict[str, float]:
        """Return the metrics of the answers to all held-out prompts, with their scores."""
        scores = [score for _, score in answers if score is not None]
        if not scores:
            raise TrainingStopped(f"--reward: none of {len(answers)} answers to held-out prompts got a score")
        metrics = {
            "eval_reward": fmean(scores),
            "eval_unscored": float(len(answers) - len(scores)),
            "eval_ended": fmean(completion.finish_reason == "stop" for completion, _ in answers),
            "eval_response_length": fmean(len(completion.ids) for completion, _ in answers),
        }
        rows = [prompt.row for prompt in self.held_out]
        known = [row.response is not None and row.label is not False for row in rows]
        pairs = list(compress(zip(rows, answers, strict=True), known))
        if pairs:
            compared = measure(Answers([row for row, _ in pairs], [completion for _, (completion, _) in pairs]))
            metrics |= {f"eval_{name}": value for name, value in compared.items()}
        return metrics

    def measure_also(self, also: SecondSkill) -> dict[str, float]:
        """Answer the prompts of `--also`, each process its share; return their exact match and ROUGE-L."""
        completions = self.answer(share(also.prompts, self.accelerator), also.max_tokens)
        compared = measure(Answers(also.rows, gather_shares(completions, self.accelerator)))
        return {f"eval_also_{name}": compared[name] for name in ANSWER_METRICS if name in compared}

    def check_scored(self, scored: Scored) -> None:
        """Stop if answers without a score are not allowed (--unscored fail), or are more than half of a batch."""
        missing = scored.total.count(None)
        if missing and (self.options.unscored == "fail" or missing > MAX_UNSCORED * len(scored.total)):
            name = next(name for name, part in scored.parts.items() if None in part)
            raise TrainingStopped(f"reward {name}: {missing} of {len(scored.total)} answers got no score")

    def write_samples(self, step: int, samples: Sequence[dict[str, Any]]) -> None:
        """Append the first few samples of a step to samples.jsonl, as often as metrics are logged."""
        if self.is_world_process_zero() and step % self.args.logging_steps == 0:
            with self.samples.open("ab") as file:
                file.writelines(dump_line({"step": step, **sample}) for sample in samples[:SAMPLES])

    def read_state(self, checkpoint: Path) -> dict[str, Any]:
        """Return the saved state of a checkpoint; drop the samples that were written after it."""
        if self.is_world_process_zero():
            drop_later_lines(self.samples, step_of(checkpoint))
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
        self.alarms = Alarms.from_dict(state["alarms"])
        return state
