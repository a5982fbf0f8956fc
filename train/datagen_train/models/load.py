"""Loading a model to train: any causal language model, its tokenizer made fit for it, LoRA, freezing, saving.

What goes wrong silently elsewhere is settled here: the pad token is never the end token (or the model never learns to
stop), a tokenizer without an end token uses its separator, and a base model without a chat template gets a plain one
that is saved with it, so that what is trained is what is asked later.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import InputError

Network = TypeVar("Network", bound=torch.nn.Module)
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% else %}{{ '### Question:\n' + message['content'] + '\n\n### Answer:\n' }}{% endif %}"
    "{% endfor %}"
)
"""For base models that have none. A user's turn ends as an assistant's begins, so it needs no generation prompt."""
DIALOGUE_TEMPLATE = "{{ cls_token }}{% for message in messages %}{{ message['content'] + sep_token }}{% endfor %}"
"""For dialogue models with a BERT tokenizer, which many Chinese ones are: [CLS] you [SEP] me [SEP] you [SEP]."""
PAD_TOKEN = "<|pad|>"
RESERVED = re.compile(r"reserved|unused|fim_pad|finetune.*pad", re.IGNORECASE)
"""Tokens that a vocabulary holds for later use: one of them can pad without a larger vocabulary."""


@dataclass(frozen=True)
class ModelOptions:
    """How to load and what to train of it."""

    lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"
    """`all-linear`, or names of modules with commas between."""
    qlora: bool = False
    train_last: int | None = None
    """Train only so many last layers (and what follows them)."""
    train_layers: str | None = None
    """Train only parameters whose name this pattern finds."""
    dtype: str = "auto"
    """auto, float32 or bfloat16: the type of the weights."""


@dataclass
class Loaded:
    """A model ready to be trained, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: list[str]
    """What had to be settled, for the report."""


def load(spec: str, options: ModelOptions, texts: Iterable[str], seed: int) -> Loaded:
    """Load `tiny`, a folder or a hub name; `texts` are what tiny's tokenizer is trained on."""
    if spec == "tiny" or spec.startswith("tiny:"):
        from datagen_train.models.tiny import make_tiny

        model, tokenizer = make_tiny(spec, texts, seed)
        return Loaded(
            model, tokenizer, ["tiny is a toy made from nothing, to try things with; --model names a real one"]
        )
    path = spec.removeprefix("hf:")
    if Path(path).joinpath("adapter_config.json").exists():
        raise InputError(f"{path}: is a LoRA adapter; merge it first: datagen train merge {path}")
    loaded = Loaded(load_model(path, options), load_tokenizer(path), [])
    loaded.notes += fit_tokenizer(loaded.model, loaded.tokenizer)
    return loaded


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer; raise InputError with the way out."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"model {path}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    return tokenizer


def load_model(path: str, options: ModelOptions) -> PreTrainedModel:
    """Load the weights; raise InputError with the way out."""
    kwargs: dict[str, Any] = {"dtype": pick_dtype(options)}
    if options.qlora:
        kwargs["quantization_config"] = four_bits()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"model {path}: cannot be loaded: {_first_line(error)}. Name a folder, a hub name, or tiny"
        ) from error
    return model


def pick_dtype(options: ModelOptions) -> torch.dtype:
    """Choose the type of the weights: what is trained stays in float32, or small steps would round to nothing."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if options.dtype == "auto":
        return torch.bfloat16 if has_bf16() and (options.lora or options.qlora) else torch.float32
    if options.dtype not in known:
        raise InputError(f"--dtype {options.dtype}: expected auto, {' or '.join(known)}")
    return known[options.dtype]


def has_bf16() -> bool:
    """Say whether there is a device that computes in bfloat16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def four_bits() -> Any:
    """The settings of QLoRA (arXiv 2305.14314): 4-bit NormalFloat, double quantisation."""
    if not torch.cuda.is_available():
        raise InputError("--qlora needs a CUDA device; on this machine use --lora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def fit_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Settle end, pad and template; say what was done."""
    notes = []
    is_dialogue = tokenizer.eos_token is None and tokenizer.cls_token is not None
    if tokenizer.eos_token is None:
        if tokenizer.sep_token is None:
            raise InputError("the tokenizer has neither an end token nor a separator: nothing could end an answer")
        tokenizer.eos_token = tokenizer.sep_token
        notes.append(f"end token: the separator {tokenizer.sep_token}")
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        notes.append(f"pad token: {give_pad_token(model, tokenizer)}, so that the end token is trained")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = DIALOGUE_TEMPLATE if is_dialogue else PLAIN_TEMPLATE
        kind = "that of dialogue models, [CLS] turn [SEP] turn [SEP]," if is_dialogue else "a plain one"
        notes.append(f"chat template: none came with the model; {kind} is used and saved")
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.generation_config.eos_token_id = sorted(turn_end_ids(model, tokenizer))
    return notes


def give_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Choose a reserved token to pad with, or add one; the vocabulary grows only if it must."""
    reserved = [token for token in tokenizer.all_special_tokens if RESERVED.search(token)]
    reserved += [token for token in tokenizer.get_added_vocab() if RESERVED.search(token)]
    if reserved:
        tokenizer.pad_token = sorted(reserved)[0]
    else:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return str(tokenizer.pad_token)


def turn_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that end an assistant turn: generation_end_ids and what the template closes a turn with."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = set(configured if isinstance(configured, list) else [configured]) - {None}
    closer = turn_closer(tokenizer)
    return ids | {tokenizer.eos_token_id} | ({closer} if closer is not None else set())


def turn_closer(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that the chat template puts behind an assistant's words, if it does."""
    if tokenizer.chat_template is None:
        return None
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "ANSWER"}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    after = tokenizer(text.rpartition("ANSWER")[2], add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return next((token for token in after if token in special), None)


def choose_trained(model: PreTrainedModel, options: ModelOptions) -> PreTrainedModel:
    """Wrap the model in LoRA, or freeze what is not to be trained; raise if nothing would be."""
    if options.lora or options.qlora:
        return with_lora(model, options)
    if options.train_last is not None or options.train_layers is not None:
        keep = trained_pattern(model, options)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(bool(keep.search(name)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        names = ", ".join(name for name, _ in list(model.named_parameters())[-3:])
        raise InputError(f"--train-layers {options.train_layers}: finds no parameter; there are, for example: {names}")
    return model


def trained_pattern(model: PreTrainedModel, options: ModelOptions) -> re.Pattern[str]:
    """Return what the names of the trained parameters must match."""
    if options.train_layers is not None:
        try:
            return re.compile(options.train_layers)
        except re.error as error:
            raise InputError(f"--train-layers {options.train_layers}: no pattern: {error}") from error
    count = int(model.config.num_hidden_layers)
    last = options.train_last or 0
    if not 1 <= last <= count:
        raise InputError(f"--train-last {last}: the model has {count} layers")
    numbers = "|".join(str(n) for n in range(count - last, count))
    return re.compile(rf"\.({numbers})\.|lm_head|\.norm\.|\.ln_f\.|final_layer")


def with_lora(model: PreTrainedModel, options: ModelOptions) -> PreTrainedModel:
    """Add low-rank adapters (arXiv 2106.09685) to the named linear modules; the head stays as it is."""
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    targets, head = options.lora_targets, "score"
    scores = hasattr(model, head)  # a reward model: its head is new, so it is trained and saved whole
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if scores else TaskType.CAUSAL_LM,
        modules_to_save=[head] if scores else None,
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets if targets == "all-linear" else [name.strip() for name in targets.split(",")],
    )
    if options.qlora:
        model = prepare_model_for_kbit_training(model)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"--lora-targets {targets}: {_first_line(error)}") from error


def without_dropout(model: Network) -> Network:
    """Turn dropout off, also where a module keeps its share as a number, as the attention of most models does."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def count_parameters(model: PreTrainedModel) -> tuple[int, int]:
    """Return (trained, all) parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300].rstrip(".") if str(error).strip() else type(error).__name__
