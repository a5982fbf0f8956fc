"""What stands before the first iteration of PPO: prompts, models, the distribution, data to mix in."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from datagen.errors import InputError
from datagen.llm.local.generation import context_length
from datagen.records.files import open_input
from datagen.records.reader import DOCUMENTS, PROMPTS, Reader
from datagen.records.record import BadLine, Document, Record, as_messages
from datagen_train.data.encode import IGNORED, Encoded, Encoder, Split, UnusableRow, conversation
from datagen_train.models.actor_critic import SHARED, ActorCritic, Distribution, load_critic, make_head
from datagen_train.models.load import Loaded, load_tokenizer, without_dropout
from datagen_train.models.scoring import CONTRACT
from datagen_train.models.tokens import attention_mask, pad
from datagen_train.rewards.specs import split_weight
from datagen_train.run.on_policy import Asked
from datagen_train.run.session import Session

PLACEHOLDER = "."
"""Stands for the answer of a row that has none, so that its prompt is encoded as any other."""


def choose_distribution(
    session: Session, temperature: float, stops: Sequence[str], suppressed: Sequence[str]
) -> Distribution:
    """Settle what ends an answer and what is never said, for this run and for whoever uses the policy after it."""
    loaded = session.loaded
    settings: Any = loaded.model.generation_config
    session.encoder.ends |= {token_id(loaded, "--stop-token", token) for token in stops}
    settings.eos_token_id = sorted(session.encoder.ends)
    never = tuple(token_id(loaded, "--suppress", token) for token in suppressed)
    if ends := session.encoder.ends & set(never):
        names = ", ".join(loaded.tokenizer.convert_ids_to_tokens(sorted(ends)))
        raise InputError(f"--suppress {names}: ends an answer; without it none would end")
    settings.suppress_tokens = list(never) or None
    return Distribution(temperature, never)


def token_id(loaded: Loaded, flag: str, token: str) -> int:
    """Return the id of a token; raise where the vocabulary does not hold it."""
    vocabulary = loaded.tokenizer.get_vocab()
    if token not in vocabulary:
        raise InputError(f"{flag} {token}: is no token of the model's vocabulary")
    return int(vocabulary[token])


def encode_prompts(session: Session, rows: Sequence[Record], max_tokens: int) -> Split[Record, Asked]:
    """Encode the rows' prompts as they are answered; drop those that leave no room for an answer."""
    room = min(session.options.max_length, context_length(session.loaded.model)) - max_tokens
    if room < 1:
        raise InputError(f"--max-tokens {max_tokens}: leaves no room for a prompt within --max-length")

    def encode(row: Record) -> list[Asked]:
        answer = {"role": "assistant", "content": row.response or PLACEHOLDER}
        turn = session.encoder.turns([*as_messages(row.prompt), answer])
        prompt = turn.ids[: next(i for i, label in enumerate(turn.labels) if label != IGNORED)]
        if len(prompt) > room:
            raise UnusableRow(f"the prompt leaves no room for --max-tokens {max_tokens}")
        return [Asked(row, prompt, turn)]

    return session.encode(rows, encode, lambda asked: (len(asked.prompt), 0, False))


def make_model(session: Session, critic: str | None, rewards: Sequence[str], distribution: Distribution) -> ActorCritic:
    """Join the policy and its critic."""
    policy, vocabulary = session.loaded.model, session.loaded.tokenizer.get_vocab()
    spec = critic or fitting_reward_model(rewards, vocabulary) or SHARED
    if spec == SHARED:
        trunk, head = None, make_head(policy.config.get_text_config().hidden_size)
    else:
        trunk, head = load_critic(spec, vocabulary)
    session.terminal.say(f"critic: {'a value head on the policy' if trunk is None else spec}")
    model = ActorCritic(policy, trunk, head, distribution)
    without_dropout(model)
    if session.options.checkpointing:
        recompute(model)
    return model


def fitting_reward_model(rewards: Sequence[str], vocabulary: dict[str, int]) -> str | None:
    """Return the one reward model among the rewards, if it is a whole one that sees the same tokens as the policy."""
    folders = [name for _, name in map(split_weight, rewards) if (Path(name) / CONTRACT).is_file()]
    whole = len(folders) == 1 and not (Path(folders[0]) / "adapter_config.json").exists()
    if whole and load_tokenizer(folders[0]).get_vocab() == vocabulary:
        return folders[0]
    return None


def recompute(model: ActorCritic) -> None:
    """Recompute activations on the way back, of policy and critic."""
    for part in (model.policy, model.critic):
        if part is not None:
            trunk: Any = part
            trunk.gradient_checkpointing_enable()
            trunk.enable_input_require_grads()


def reference(loaded: Loaded) -> torch.nn.Module | None:
    """Return the frozen reference; None where it is the policy without its adapters."""
    if hasattr(loaded.model, "peft_config"):
        return None
    copy = deepcopy(loaded.model).eval().requires_grad_(False)
    without_dropout(copy)
    return copy


def arguments(session: Session, split: Split[Record, Asked]) -> dict[str, Any]:
    """Return the settings of the library's loop, whose step is an iteration here."""
    options, made = session.options, session.arguments(split)
    whole = len(split.train) >= options.batch_size * options.nproc
    if made["metric_for_best_model"] and options.best == "loss":
        made |= {"metric_for_best_model": "eval_reward", "greater_is_better": True}
    return made | {
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "dataloader_drop_last": whole,
        "remove_unused_columns": False,
    }


@dataclass(frozen=True)
class Extra:
    """Sequences whose loss is mixed in (PPO-ptx, arXiv 2203.02155)."""

    sequences: list[Encoded]

    def draw(self, purpose: str, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Draw sequences; return (ids, mask, labels)."""
        drawn = Random(purpose).choices(self.sequences, k=count)
        ids = [sequence.ids for sequence in drawn]
        labels = pad([sequence.labels for sequence in drawn], IGNORED)
        return pad(ids, 0).to(device), attention_mask(ids).to(device), labels.to(device)


def read_extra(session: Session, name: str) -> Extra:
    """Read rows with responses, or documents, to be learned beside."""
    made, dropped = [], 0
    for row in answered_or_documents(name):
        try:
            made += encode_extra(session.encoder, row)
        except UnusableRow:
            dropped += 1
    if not made:
        raise InputError(f"--ptx-data {name}: no row could be used")
    session.terminal.say(f"--ptx-data: {len(made)} sequences, {dropped} rows dropped")
    return Extra(made)


def answered_or_documents(name: str) -> list[Record | Document]:
    with open_input(name) as file:
        try:
            rows = [row for row in Reader(name, file, PROMPTS).read() if not isinstance(row, BadLine)]
            answered: list[Record | Document] = [row for row in rows if row.response is not None]
        except InputError:
            answered = []
        if answered:
            return answered
        file.seek(0)
        return [row for row in Reader(name, file, DOCUMENTS).read() if not isinstance(row, BadLine)]


def encode_extra(encoder: Encoder, row: Record | Document) -> list[Encoded]:
    return list(encoder.document(row.text)) if isinstance(row, Document) else [encoder.turns(conversation(row))]
