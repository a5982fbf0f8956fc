"""A built-in model and tokenizer, built from the data at hand without a download, so that every trainer runs offline.

`tiny` is a two-layer Llama of about 0.1 million parameters with a byte-level BPE of a few hundred tokens, digits one by
one: small enough to learn a task of short answers on one core in seconds, and otherwise a model like any other.

    tiny                             tiny:hidden=128,layers=4,vocab=512
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from datagen.errors import InputError

PAD, UNUSED, START, END = "<|pad|>", "<|unused|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>tools\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>\n' + call['function'] | tojson + '\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The ChatML convention, which many current models share, with tools and calls as JSON."""
INIT_STD = 0.08
"""The usual 0.02 suits wide models; at this width training with it succeeds for some seeds only."""
MAX_POSITIONS = 1024
"""In tokens."""


@dataclass(frozen=True)
class TinySpec:
    """The size of the model."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    vocab: int = 384


def parse_tiny(spec: str) -> TinySpec:
    """Parse `tiny` or `tiny:hidden=128,...`."""
    known = {field.name for field in fields(TinySpec)}
    sizes: dict[str, int] = {}
    for part in filter(None, spec.partition(":")[2].split(",")):
        name, _, value = part.partition("=")
        if name not in known or not value.isdecimal() or int(value) < 1:
            raise InputError(f"model {spec!r}: expected {', '.join(sorted(known))} with whole numbers: {part!r}")
        sizes[name] = int(value)
    size = TinySpec(**sizes)
    if size.hidden % size.heads:
        raise InputError(f"model {spec!r}: hidden must be a multiple of heads ({size.heads})")
    return size


def make_tokenizer(texts: Iterable[str], vocab: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; it can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        show_progress=False,
        special_tokens=[PAD, UNUSED, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
    )


def make_tiny(spec: str, texts: Iterable[str], seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Build the model and its tokenizer; the same texts and seed give the same weights."""
    size = parse_tiny(spec)
    tokenizer = make_tokenizer(texts, size.vocab)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=INIT_STD,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config), tokenizer
