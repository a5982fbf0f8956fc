"""Answers from a transformers model: loading a folder, and generating in batches.

What a sequence becomes does not depend on what else is in its batch, up to float rounding. Padding stands to the left
under an explicit mask, with positions counted from the first real token. Each sequence has a generator of chance of its
own. Every token of the vocabulary runs a race against its own draw, so a rounding that lets one more or one less into
the nucleus matters only where that one would win; a place in the cumulative distribution would shift with it.
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
from datagen.llm.local.weights import adapter_base, model_files

Ids = list[int]
MOST_TOKENS = 1 << 17
"""Places in the cache of a batch: padded prompts, and room for answers."""
GREEDY_BELOW = 1e-4
"""Temperature; what is colder would divide by nearly nothing."""
TINY = 1e-30
ASSUMED_CONTEXT = 1 << 15
"""Tokens, where a model does not say."""
CJK = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef"
CJK_SPACE = re.compile(f" (?=[{CJK}])(?<=[{CJK}] )")
"""A space between two Chinese characters, where none is written."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer."""

    text: str
    """Without special tokens, up to a stop string."""
    ids: Ids
    """As generated, with the token that ended it."""
    finish_reason: str
    """`stop`: it ended by itself, or at a stop string; `length`: it was cut."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What is shared by sequences that are generated together."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    suppressed: tuple[int, ...] = ()
    """Tokens that are never chosen."""

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


@dataclass(eq=False, slots=True)
class _Sequence:
    """One prompt on its way to an answer."""

    prompt: Ids
    most: int
    """Tokens to make, in all."""
    chance: torch.Generator
    made: Ids = field(default_factory=list)
    stopped: bool = False

    @property
    def is_done(self) -> bool:
        return self.stopped or len(self.made) >= self.most


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
) -> list[Generated]:
    """Answer every prompt, in order; `seeds`, one a prompt, draw what is sampled (without them: 0, 1, 2, ...)."""
    sampling = Sampling(max_tokens, temperature, top_p, stop, suppressed)
    room = context_length(model)
    chances = (_chance(model, seed) for seed in (range(len(prompts)) if seeds is None else seeds))
    rows = [
        _Sequence(prompt, max(0, min(max_tokens, room - len(prompt))), chance)
        for prompt, chance in zip(prompts, chances, strict=True)
    ]
    has_ended = _ending(tokenizer, generation_end_ids(model, tokenizer), stop)
    with inference_mode(model):
        for batch in in_batches([len(row.prompt) + row.most for row in rows], batch_size, MOST_TOKENS):
            _answer(model, [rows[i] for i in batch if not rows[i].is_done], sampling, has_ended)
    return [_finished(row, tokenizer, stop) for row in rows]


def _chance(model: PreTrainedModel, seed: int) -> torch.Generator:
    return torch.Generator(model.device).manual_seed(seed)


def in_batches(lengths: Sequence[int], batch_size: int, most: int) -> list[list[int]]:
    """Group sequences by length, the longest first, with at most so many padded tokens in a group; return indices."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        last = batches[-1] if batches else []
        if not last or len(last) == batch_size or (len(last) + 1) * lengths[last[0]] > most:
            batches.append([])
        batches[-1].append(index)
    return batches


def context_length(model: PreTrainedModel) -> int:
    """Return how many tokens a model can look at."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else ASSUMED_CONTEXT


def generation_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that end a generated answer: those of the generation config, and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ids, tokenizer.eos_token_id] if isinstance(token, int)}


@contextmanager
def inference_mode(model: PreTrainedModel) -> Iterator[None]:
    """Look at a model without a trace: no gradient, no dropout; modes and the state of chance are as before."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes:
            module.training = training


Ending = Callable[[_Sequence], bool]


def _ending(tokenizer: PreTrainedTokenizerBase, ends: set[int], stop: tuple[str, ...]) -> Ending:
    """Return what says whether a sequence has just ended."""
    tail = max((len(text.encode()) for text in stop), default=0) + 8  # a token holds a byte at least, or is special

    def has_ended(row: _Sequence) -> bool:
        if row.made[-1] in ends:
            return True
        return bool(stop) and any(text in _text(tokenizer, row.made[-tail:]) for text in stop)

    return has_ended


def _answer(model: PreTrainedModel, rows: list[_Sequence], sampling: Sampling, has_ended: Ending) -> None:
    """Generate a batch to its end. Rows that are done leave it once half of them are."""
    if not rows:
        return
    ids, mask = (side.to(model.device) for side in left_padded([row.prompt for row in rows]))
    cache = None
    while True:
        logits, cache = _forward(model, ids, mask, cache)
        tokens = pick(logits, sampling, [row.chance for row in rows])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not row.is_done:
                row.made.append(token)
                row.stopped = has_ended(row)
        ids, mask = tokens[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        going = [i for i, row in enumerate(rows) if not row.is_done]
        if not going:
            return
        if 2 * len(going) <= len(rows) and _can_select(cache):
            kept = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept)
            rows, ids, mask = [rows[i] for i in going], ids[kept], mask[kept]


def left_padded(prompts: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay prompts out as (ids, mask) of one width; the id under the padding is of no matter."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def _forward(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Return the logits of the next token, and the cache with what was seen."""
    known, width = _parameters(model), ids.shape[1]
    more: dict[str, Any] = {}
    if "position_ids" in known:
        more["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, -width:]
    if "logits_to_keep" in known:  # the logits of a whole prompt would take more memory than the model
        more["logits_to_keep"] = 1
    word = "cache" if "cache" in known else "past_key_values"  # its name before transformers 5.24
    made = model(input_ids=ids, attention_mask=mask, use_cache=True, **{word: cache}, **more)
    return made.logits[:, -1], getattr(made, word)


def _parameters(model: PreTrainedModel) -> set[str]:
    whole: Any = model
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole  # an adapter passes everything on
    return set(signature(inner.forward).parameters)


def _can_select(cache: Any) -> bool:
    return all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", [cache]))


def pick(logits: torch.Tensor, sampling: Sampling, chances: Sequence[torch.Generator]) -> torch.Tensor:
    """Choose a token for each row, by the row's own chance."""
    if sampling.suppressed:
        logits = logits.index_fill(-1, torch.tensor(sampling.suppressed, device=logits.device), float("-inf"))
    if sampling.is_greedy:
        return logits.argmax(-1)
    shares = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        shares = nucleus(shares, sampling.top_p)
    times = torch.stack([torch.empty_like(shares[0]).exponential_(generator=chance) for chance in chances])
    return (shares / times.clamp_min(TINY)).argmax(-1)


def nucleus(shares: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the likeliest tokens that together reach `top_p`, one at least."""
    ordered, places = shares.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    beyond[:, 0] = False
    return shares.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), 0.0)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Ids) -> str:
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return CJK_SPACE.sub("", text) if _puts_spaces(tokenizer) else text


def _puts_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Does decoding put a space before every token that begins a word, as BERT's tokenizers do?"""
    return isinstance(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), decoders.WordPiece)


def _finished(row: _Sequence, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> Generated:
    text = _text(tokenizer, row.made)
    cut = min((at for at in map(text.find, stop) if at >= 0), default=len(text))
    return Generated(text[:cut], row.made, "stop" if row.stopped else "length")


def open_model(
    folder: Path, *, base: str | None = None, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model, or an adapter on its base, with its tokenizer, onto the device at hand.

    `base` stands in for the one that an adapter names. Weights are in float32 on a CPU, else as they were saved.
    """
    model_files(folder)
    logging.disable_progress_bar()
    own_base = adapter_base(folder)
    whole = str(folder) if own_base is None else base or own_base
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind: Any = dtype or ("auto" if device == "cuda" else torch.float32)
    try:
        model = load_whole(whole, kind)
        tokenizer = AutoTokenizer.from_pretrained(folder if (folder / "tokenizer_config.json").exists() else whole)
        if own_base is not None:
            model = _with_adapter(model, tokenizer, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        said = [*str(error).strip().splitlines(), type(error).__name__][0][:300]
        raise InputError(f"model {folder}: cannot be loaded: {said}") from error
    placed: Any = model
    return placed.to(device).eval(), tokenizer


def load_whole(path: str, dtype: Any) -> PreTrainedModel:
    """Load weights; raise if some are missing, which the library would make up."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise InputError(f"model {path}: {len(missing)} weights are missing, such as {missing[0]}")
    return model


def _with_adapter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    embedding: Any = model.get_input_embeddings()
    if len(tokenizer) > embedding.num_embeddings:  # it was trained with an added pad token
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return PeftModel.from_pretrained(model, str(folder))
