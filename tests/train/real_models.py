"""Small models built as those of well-known families are: architecture, special tokens, padding, context, layout.

What differs between families decides what training must cope with: whether there is a token to pad with, a start token
that every text was trained behind, positions that end, an embedding narrower than the model, a template.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from tests.train.families import DEEPSEEK_R1, GEMMA, LLAMA3, MISTRAL, PHI, QWEN3

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WIDTH = 64
LLAMA_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.05, "max_position_embeddings": 2048,
}  # fmt: skip
GPT_SIZES: dict[str, Any] = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "initializer_range": 0.05}
OPT_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "init_std": 0.05,
    "max_position_embeddings": 1024,
}  # fmt: skip


class Shape(NamedTuple):
    """How a family's models and tokenizers are made."""

    config: Callable[..., PreTrainedConfig]
    sizes: dict[str, Any]
    special: tuple[str, ...]
    roles: dict[str, str]
    """Which special tokens the tokenizer names: eos_token and others."""
    template: str | None = None
    plain: tuple[str, ...] = ()
    """Added tokens that are part of texts."""
    stops: tuple[str, ...] = ()
    """Tokens that end generation beside the tokenizer's."""
    starts: str = ""
    """The token that the tokenizer itself puts before every text."""
    spare: int = 8
    """Rows of the embedding that no token has."""


THINK = ("<think>", "</think>")
IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
REAL: dict[str, Shape] = {
    "Qwen2": Shape(
        Qwen2Config, LLAMA_SIZES, IM, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, CHATML,
        stops=("<|endoftext|>",),
    ),
    "Qwen2 base": Shape(
        Qwen2Config, LLAMA_SIZES, IM, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, CHATML
    ),
    "Qwen3": Shape(
        Qwen3Config, LLAMA_SIZES | {"head_dim": 16}, IM, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        QWEN3.template, QWEN3.plain, ("<|endoftext|>",),
    ),
    "Llama 3": Shape(
        LlamaConfig, LLAMA_SIZES, LLAMA3.special, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        LLAMA3.template, stops=("<|end_of_text|>",), starts="<|begin_of_text|>", spare=0,
    ),
    "Llama 3 base": Shape(
        LlamaConfig, LLAMA_SIZES, ("<|begin_of_text|>", "<|end_of_text|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}, starts="<|begin_of_text|>", spare=0,
    ),
    "Gemma 2": Shape(
        Gemma2Config, LLAMA_SIZES | {"head_dim": 16}, ("<pad>", "<unk>", *GEMMA.special),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        GEMMA.template, stops=("<end_of_turn>",), starts="<bos>", spare=0,
    ),
    "DeepSeek-R1 distill": Shape(
        Qwen2Config, LLAMA_SIZES, DEEPSEEK_R1.special,
        {"bos_token": DEEPSEEK_R1.special[0], "eos_token": DEEPSEEK_R1.ends[0], "pad_token": DEEPSEEK_R1.ends[0]},
        DEEPSEEK_R1.template, DEEPSEEK_R1.plain, starts=DEEPSEEK_R1.special[0],
    ),
    "Mistral": Shape(
        MistralConfig, LLAMA_SIZES, ("<unk>", *MISTRAL.special),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, MISTRAL.template, starts="<s>", spare=0,
    ),
    "Phi 3": Shape(
        Phi3Config, LLAMA_SIZES | {"pad_token_id": None}, PHI.special,
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, PHI.template,
        stops=("<|end|>",),
    ),
    "GPT-2": Shape(
        GPT2Config, GPT_SIZES | {"n_positions": 1024}, ("<|endoftext|>",),
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), spare=0,
    ),
    "GPT-2, 300 positions": Shape(
        GPT2Config, GPT_SIZES | {"n_positions": 300}, ("<|endoftext|>",),
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"), spare=0,
    ),
    "GPT-2, BERT's tokens": Shape(
        GPT2Config, GPT_SIZES | {"n_positions": 300}, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}, spare=0,
    ),
    "OPT": Shape(
        OPTConfig, OPT_SIZES | {"word_embed_proj_dim": WIDTH}, ("<pad>", "</s>"),
        {"pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}, starts="</s>",
    ),
    "OPT, narrow embedding": Shape(
        OPTConfig, OPT_SIZES | {"word_embed_proj_dim": WIDTH // 2, "do_layer_norm_before": False}, ("<pad>", "</s>"),
        {"pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}, starts="</s>",
    ),
    "BLOOM": Shape(
        BloomConfig, {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4, "initializer_range": 0.05},
        ("<unk>", "<s>", "</s>", "<pad>"),
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
    "Pythia": Shape(
        GPTNeoXConfig,
        {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 1024},
        ("<|endoftext|>", "<|padding|>"), dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>"),
    ),
}  # fmt: skip
"""OPT's second layout is that of OPT-350m; GPT-2 with BERT's tokens is what Chinese dialogue models are."""


def make_real(name: str, texts: Iterable[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return an untrained model of a family, and its tokenizer, which is trained on the texts."""
    shape = REAL[name]
    tokenizer = make_real_tokenizer(shape, texts)
    set_seed(0)
    named = {role: getattr(tokenizer, f"{role}_id") for role in ("bos_token", "eos_token", "pad_token")}
    ids = {f"{role}_id": number for role, number in named.items()}
    model = AutoModelForCausalLM.from_config(shape.config(vocab_size=len(tokenizer) + shape.spare, **ids | shape.sizes))
    if shape.stops:
        model.generation_config.eos_token_id = [
            tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(shape.stops))
        ]  # fmt: skip
    return model, tokenizer


def make_real_tokenizer(shape: Shape, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with the special tokens of a family."""
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=384, show_progress=False, initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens(list(shape.special))
    if shape.starts:
        start = (shape.starts, tokenizer.token_to_id(shape.starts))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{shape.starts} $A", special_tokens=[start])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=shape.template, **shape.roles)
    fast.add_special_tokens({"additional_special_tokens": list(shape.special)})
    fast.add_tokens(list(shape.plain))
    return fast
