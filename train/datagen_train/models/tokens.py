"""Special tokens and padding: what ends an answer, what fills a batch up, how a conversation becomes text.

Masks say what is padding, never its id: so any token pads, the end token is trained where it is padding as well, and
the vocabulary never grows for the sake of a batch. (A new row of the embedding would have a logit near 0, and take all
of the probability in a model whose logits lie far below that, as those of GPT-2 do.) A tokenizer without an end token
uses its separator. A base model without a chat template gets a plain one, which is saved with the model, so that
prompts look the same in training and in use.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import InputError
from datagen.llm.local.chat_template import render_chat
from datagen.records.record import Messages
from datagen_train.models.template import ChatTemplate

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% else %}{{ '### Question:\n' + message['content'] + '\n\n### Answer:\n' }}{% endif %}"
    "{% endfor %}"
)
"""For base models without a template. It needs no generation prompt: a user turn ends with the start of the answer."""
DIALOGUE_TEMPLATE = "{{ cls_token }}{% for message in messages %}{{ message['content'] + sep_token }}{% endfor %}"
"""For dialogue models with a BERT tokenizer, as many Chinese ones have: [CLS] you [SEP] me [SEP] you [SEP]."""
TokenSequence = Sequence[int] | np.ndarray[Any, np.dtype[np.int32]]


def fit_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Set the end token, the pad token and the chat template where they are missing or wrong.

    Also sets the pad and end token ids in the model's config and generation config.

    Returns:
        One note for each change, for the report.

    Raises:
        InputError: no token of the tokenizer could end an answer.
    """
    notes = []
    is_dialogue = tokenizer.eos_token is None and tokenizer.cls_token is not None
    if tokenizer.eos_token is None:
        if tokenizer.sep_token is None:
            raise InputError("the tokenizer has neither an end token nor a separator: nothing could end an answer")
        tokenizer.eos_token = tokenizer.sep_token
        notes.append(f"end token: the separator {tokenizer.sep_token}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(
            f"pad token: the end token {tokenizer.eos_token}, since there is none; the mask says what is padding"
        )
    if tokenizer.chat_template is None:
        plain = f"{{{{ bos_token }}}}{PLAIN_TEMPLATE}" if start_token(tokenizer) is not None else PLAIN_TEMPLATE
        tokenizer.chat_template = DIALOGUE_TEMPLATE if is_dialogue else plain
        kind = "that of dialogue models, [CLS] turn [SEP] turn [SEP]," if is_dialogue else "a plain one"
        notes.append(f"chat template: none came with the model; {kind} is used and saved")
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.generation_config.eos_token_id = sorted(turn_end_ids(model, tokenizer))
    return notes


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the start token, if the tokenizer puts it before every text: the model was trained behind it."""
    start = tokenizer.bos_token_id
    return start if start is not None and tokenizer("a")["input_ids"][:1] == [start] else None


def turn_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that end an assistant turn: generation_end_ids and what the template closes a turn with."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(configured if isinstance(configured, list) else [configured]) - {None}
    closers = (turn_closer(tokenizer), call_closer(tokenizer))
    return ids | {tokenizer.eos_token_id} | {closer for closer in closers if closer is not None}


def turn_closer(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that the chat template puts behind an assistant's words, if it does."""
    if tokenizer.chat_template is None:
        return None
    turns: Messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
    _, answer, text = render_chat(tokenizer, turns).rpartition("ANSWER")
    after = tokenizer(text if answer else "", add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return next((token for token in after if token in special), None)


def call_closer(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that ends a turn which calls a tool: for some models it is another.

    It is the last one that the chat template writes: those before it may quote an argument, or end one of many calls.
    """
    text = ChatTemplate(tokenizer).after_call if tokenizer.chat_template is not None else ""
    added = tokenizer.added_tokens_decoder
    after = tokenizer(text, add_special_tokens=False)["input_ids"]
    return next((token for token in reversed(after) if token in added and added[token].special), None)


def pad(sequences: Sequence[TokenSequence], filler: int, *, left: bool = False) -> torch.Tensor:
    """Put sequences into one int64 tensor of shape (sequences, longest), filled up on the right or on the left."""
    width = max(map(len, sequences))
    padded = np.full((len(sequences), width), filler, dtype=np.int64)
    for row, ids in enumerate(sequences):
        start = width - len(ids) if left else 0
        padded[row, start : start + len(ids)] = ids
    return torch.from_numpy(padded)


def attention_mask(sequences: Sequence[TokenSequence], *, left: bool = False) -> torch.Tensor:
    """Return the mask of `pad`: 1 at the tokens, 0 at the padding; of the same shape."""
    lengths = torch.tensor([len(ids) for ids in sequences])[:, None]
    positions = torch.arange(int(lengths.max()))
    return (positions >= len(positions) - lengths if left else positions < lengths).long()
