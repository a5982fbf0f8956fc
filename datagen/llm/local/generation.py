"""Answers from a transformers model: loading a folder, and generating in batches.

What a sequence becomes does not depend on its batch, up to float rounding. Padding is on the left under an explicit
mask, with positions counted from the first real token. Each sequence has its own random generator. To sample, every
token of the vocabulary draws an exponential time, and the shortest time relative to the token's probability wins: a
rounding that adds a token to the nucleus or removes one matters only where that token would win, while a position in
the cumulative distribution would shift with it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import decoders
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from datagen.errors import InputError
from datagen.llm.local.loading import load_adapter, load_network, load_part, refuse_missing
from datagen.llm.local.weights import adapter_base, is_adapter, model_files
from datagen.reasoning import MARKS, OPENING, Thought, split_thinking, without_end_tokens

Ids = list[int]
MAX_BATCH_TOKENS = 1 << 17
"""Positions in the cache of a batch: padded prompts and the tokens to come."""
GREEDY_BELOW = 1e-4
"""The temperature below which decoding is greedy; a division by it would overflow."""
TINY = 1e-30
ASSUMED_CONTEXT = 1 << 15
"""Tokens, where the config of a model does not say."""
PROMPT_END = 16
"""Tokens of a prompt in which its end is looked for."""
OPENINGS = tuple(marks.opening for marks in MARKS if marks.alone)
CJK = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef"
CJK_SPACE = re.compile(f" (?=[{CJK}])(?<=[{CJK}] )")
"""A space between two Chinese characters, which a WordPiece decoder adds."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated answer."""

    text: str
    """The answer without special tokens, up to a stop string; empty where the model was still thinking."""
    ids: Ids
    """As generated, with the end token."""
    finish_reason: str
    """`stop`: it ended with an end token or at a stop string; `length`: it was cut."""
    reasoning: str = ""
    """What the model thought before the answer, without marks."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The parameters of sequences that are generated together."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    suppressed: tuple[int, ...] = ()
    """Tokens that are never chosen."""


@dataclass(eq=False, slots=True)
class _Sequence:
    """A prompt and the tokens generated for it so far."""

    prompt: Ids
    max_tokens: int
    rng: torch.Generator
    ids: Ids = field(default_factory=list)
    stopped: bool = False

    @property
    def is_done(self) -> bool:
        return self.stopped or len(self.ids) >= self.max_tokens


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ids],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: tuple[str, ...] = (),
    suppressed: tuple[int, ...] = (),
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Generate an answer to each prompt.

    Args:
        prompts: Token ids, each prompt without padding.
        max_tokens: The most tokens of an answer; the context of the model may allow fewer.
        temperature: 0 is greedy.
        top_p: Nucleus sampling; 1 samples from all tokens.
        stop: Strings that end an answer and are not part of it.
        suppressed: Token ids that are never chosen.
        seeds: A random seed for each prompt; without them 0, 1, 2, ...
        batch_size: The most sequences in a batch.
        on_tokens: Called after each step with the number of tokens that it generated.

    Returns:
        The answers in the order of the prompts.
    """
    sampling = Sampling(max_tokens, temperature, top_p, stop, suppressed)
    context = context_length(model)
    rows = [
        _Sequence(
            prompt, max(0, min(max_tokens, context - len(prompt))), torch.Generator(model.device).manual_seed(seed)
        )
        for prompt, seed in zip(prompts, range(len(prompts)) if seeds is None else seeds, strict=True)
    ]
    end_ids = generation_end_ids(model, tokenizer)
    with inference_mode(model):
        for batch in in_batches([len(row.prompt) + row.max_tokens for row in rows], batch_size, MAX_BATCH_TOKENS):
            unfinished = [rows[i] for i in batch if not rows[i].is_done]
            if unfinished:
                _generate_batch(model, tokenizer, unfinished, sampling, end_ids, on_tokens)
    answers = []
    for row in rows:
        reasoning, text = split_answer(tokenizer, row.prompt, row.ids)
        end = min((place for place in map(text.find, stop) if place >= 0), default=len(text))
        answers.append(Generated(text[:end], row.ids, "stop" if row.stopped else "length", reasoning))
    return answers


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[_Sequence],
    sampling: Sampling,
    end_ids: set[int],
    on_tokens: Callable[[int], None] | None,
) -> None:
    """Generate all sequences of a batch to their end."""
    forward: Any = (
        model.get_base_model().forward if hasattr(model, "get_base_model") else model.forward
    )  # of an adapter
    parameters = signature(forward).parameters
    cache_name = "cache" if "cache" in parameters else "past_key_values"  # its name before transformers 5.24
    tail = max((len(text.encode()) for text in sampling.stop), default=0) + 8  # a token is a byte at least, or special
    width = max(len(row.prompt) for row in rows)
    padding = [[0] * (width - len(row.prompt)) for row in rows]  # any id will do under the mask
    ids = torch.tensor([pad + row.prompt for pad, row in zip(padding, rows, strict=True)])
    mask = torch.tensor([pad + [1] * len(row.prompt) for pad, row in zip(padding, rows, strict=True)])
    ids, mask = ids.to(model.device), mask.to(model.device)
    cache: Any = None
    while True:
        # 1. Compute the logits of the next token.
        arguments: dict[str, Any] = {cache_name: cache}
        if "position_ids" in parameters:
            arguments["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        if "logits_to_keep" in parameters:  # the logits of a whole prompt would take more memory than the model
            arguments["logits_to_keep"] = 1
        output = model(input_ids=ids, attention_mask=mask, use_cache=True, **arguments)
        cache = getattr(output, cache_name)

        # 2. Choose the tokens, and see which sequences end with them.
        tokens = choose_tokens(output.logits[:, -1], sampling, [row.rng for row in rows])
        if on_tokens:
            on_tokens(sum(not row.is_done for row in rows))
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not row.is_done:
                row.ids.append(token)
                row.stopped = token in end_ids or (
                    bool(sampling.stop) and any(text in decode(tokenizer, row.ids[-tail:]) for text in sampling.stop)
                )
        ids, mask = tokens[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)

        # 3. Remove finished sequences once they are half of the batch.
        unfinished = [i for i, row in enumerate(rows) if not row.is_done]
        if not unfinished:
            return
        layers = getattr(cache, "layers", [cache])
        if 2 * len(unfinished) <= len(rows) and all(hasattr(layer, "batch_select_indices") for layer in layers):
            kept = torch.tensor(unfinished, device=model.device)
            cache.batch_select_indices(kept)
            rows, ids, mask = [rows[i] for i in unfinished], ids[kept], mask[kept]


def choose_tokens(logits: torch.Tensor, sampling: Sampling, rngs: Sequence[torch.Generator]) -> torch.Tensor:
    """Choose a token for each row of the logits (batch, vocabulary), with the row's own generator; return (batch,)."""
    if sampling.suppressed:
        logits = logits.index_fill(-1, torch.tensor(sampling.suppressed, device=logits.device), float("-inf"))
    if sampling.temperature < GREEDY_BELOW:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:  # keep the likeliest tokens that together reach top_p, one at least
        ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= sampling.top_p
        outside[:, 0] = False
        probabilities = probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), 0.0)
    times = torch.stack([torch.empty_like(probabilities[0]).exponential_(generator=rng) for rng in rngs])
    return (probabilities / times.clamp_min(TINY)).argmax(-1)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    """Return the text of tokens without special ones. The decoder of BERT's tokenizers puts a space before every word,
    also in Chinese; those spaces are removed."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return CJK_SPACE.sub("", text) if isinstance(decoder, decoders.WordPiece) else text


def split_answer(tokenizer: PreTrainedTokenizerBase, prompt: Ids, ids: Ids) -> tuple[str, str]:
    """Return what a model thought, and its answer: both as text without special tokens.

    Args:
        prompt: The token ids that it was asked with; a chat template may open the thinking there.
        ids: The token ids that it generated.
    """
    raw = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    thought = split_thinking(raw)  # the marks are special tokens for some models
    if thought.is_cut:
        opening = OPENING.match(thought.answer)
        thought = Thought(f"{thought.reasoning}\n\n{thought.answer[opening.end() if opening else 0 :]}", "")
    elif thought.answer == without_end_tokens(raw):  # no marks
        end = str(tokenizer.decode(prompt[-PROMPT_END:], skip_special_tokens=False)).rstrip()
        if not end.endswith(OPENINGS):
            return "", decode(tokenizer, ids)
        thought = Thought(raw, "")
    special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))
    return special.sub("", thought.reasoning).strip(), special.sub("", thought.answer)


def in_batches(lengths: Sequence[int], batch_size: int, max_tokens: int) -> list[list[int]]:
    """Group sequences by length, the longest first.

    Args:
        lengths: Tokens of each sequence.
        batch_size: The most sequences in a batch.
        max_tokens: The most tokens in a batch, padding included.

    Returns:
        Batches of indices of sequences.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        last = batches[-1] if batches else []
        if not last or len(last) == batch_size or (len(last) + 1) * lengths[last[0]] > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def context_length(model: PreTrainedModel) -> int:
    """Return the most tokens that the model can attend to."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else ASSUMED_CONTEXT


def generation_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that end a generated answer: those of the generation config, and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ids, tokenizer.eos_token_id] if isinstance(token, int)}


@contextmanager
def inference_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; restores the training mode."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):  # random numbers outside are not affected
            yield
    finally:
        for module, training in modes:
            module.training = training


def open_model(
    folder: Path, *, base: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, or an adapter on its base model, with its tokenizer, onto the GPU if there is one.

    Args:
        folder: A model or a LoRA adapter.
        base: The base model to use instead of the one that the adapter names.
        dtype: Of the weights. None: float32 on a CPU, else as they were saved.

    Returns:
        The model in evaluation mode, and the tokenizer.

    Raises:
        InputError: The folder holds no model, or the model cannot be loaded.
    """
    model_files(folder)
    logging.disable_progress_bar()
    path = adapter_base(folder, base) if is_adapter(folder) else folder
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = load_full_model(path, dtype or ("auto" if device == "cuda" else torch.float32))
        tokenizer = load_part(AutoTokenizer, folder if (folder / "tokenizer_config.json").exists() else path)
        if is_adapter(folder):
            embedding: Any = model.get_input_embeddings()
            if len(tokenizer) > embedding.num_embeddings:  # it was trained with added tokens
                model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            model = load_adapter(model, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        message = [*str(error).strip().splitlines(), type(error).__name__][0][:300]
        raise InputError(f"model {folder}: cannot be loaded: {message}") from error
    placed: Any = model
    return placed.to(device).eval(), tokenizer


def load_full_model(path: Path, dtype: Any) -> PreTrainedModel:
    """Load a model that is not an adapter; raise InputError if weights are missing, which the library would invent."""
    loaded: Any = load_network(AutoModelForCausalLM, path, dtype=dtype, output_loading_info=True)
    model: PreTrainedModel = loaded[0]
    refuse_missing(path, loaded[1]["missing_keys"])
    return model
