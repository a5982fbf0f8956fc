"""A real encoder as `--embedder hf:PATH`: the mean of its states, whatever the batch, and what it refuses."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from datagen.errors import InputError
from datagen.llm.call import EMBEDDING, Call, Reply
from datagen.llm.local import embedder
from datagen.llm.local.embedder import Embedder
from datagen.llm.vectors import numbers_of
from tests.jobs import digest, rows
from tests.select.test_meaning import run, write

WORDS = "the sea river hill cloud egg poem write boil name of a an about two three".split()
CONTEXT = 24


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return build(tmp_path / "encoder")


def build(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a tiny BERT with a tokenizer of whole words."""
    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    settings = {"vocab_size": len(vocabulary), "max_position_embeddings": CONTEXT, **sizes, **config}
    BertModel(BertConfig(**settings)).save_pretrained(folder)
    return folder


def vectors(folder: Path, texts: Sequence[str], together: bool = True) -> list[Reply]:
    """Ask an embedder for the vectors of some texts, in one batch or one by one."""

    async def ask() -> list[Reply]:
        backend = Embedder(f"hf:{folder}")
        calls = [
            Call(b"", "m", [{"role": "user", "content": text}], {}, 0, 1, EMBEDDING, {}, is_embedding=True)
            for text in texts
        ]
        replies = (
            await asyncio.gather(*map(backend.send, calls))
            if together
            else [await backend.send(call) for call in calls]
        )
        await backend.close()
        return replies

    return asyncio.run(ask())


def numbers(reply: Reply) -> Any:
    return numbers_of(reply.parsed["data"][0]["embedding"])


TEXTS = ["write a poem about the sea", "boil an egg", "name two hill", " ".join(WORDS * 3)]


def test_a_vector_is_the_mean_of_the_states_of_all_tokens(encoder: Path) -> None:
    model, tokenizer = BertModel.from_pretrained(encoder).eval(), PreTrainedTokenizerFast.from_pretrained(encoder)
    for text, reply in zip(TEXTS[:3], vectors(encoder, TEXTS[:3]), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model(ids).last_hidden_state[0]
        assert np.allclose(numbers(reply), states.mean(dim=0), atol=1e-6)
        assert reply.tokens.prompt == ids.shape[1] and reply.tokens.completion == 0


def test_a_vector_does_not_depend_on_its_batch(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "BATCH_SIZE", 3)
    texts = [f"{' '.join(WORDS[: 1 + number % 9])} egg" for number in range(40)] + TEXTS
    alone, together = vectors(encoder, texts, together=False), vectors(encoder, texts)
    assert np.allclose([numbers(reply) for reply in alone], [numbers(reply) for reply in together], atol=1e-6)


def test_a_long_text_is_encoded_to_its_end(encoder: Path) -> None:
    long = " ".join(WORDS * 3)
    one, other = vectors(encoder, [f"{long} egg egg egg", f"{long} hill hill hill"])
    assert not np.allclose(numbers(one), numbers(other), atol=1e-4)
    assert one.tokens.prompt == 3 * len(WORDS) + 3 + 2 * 3, "three windows, each with two special tokens"


def test_filter_compares_by_an_encoder_and_runs_again_for_nothing(encoder: Path) -> None:
    prompts = [f"Write a poem about the {word}, {number}." for number in range(3) for word in WORDS]
    digests = set()
    for concurrency in ("1", "16"):
        Path(concurrency).mkdir()
        output = f"{concurrency}/out.jsonl"
        outcome = run(write(prompts), output, f"hf:{encoder}", dedup=["semantic:0.995"], concurrency=concurrency)
        assert outcome.result["funnel"]["failed"] == {}
        assert 0 < outcome.result["funnel"]["rejected"]["similar_meaning"] < len(prompts)
        again = run(
            write(prompts), output, f"hf:{encoder}", dedup=["semantic:0.995"], overwrite=True, concurrency=concurrency
        )
        assert (again.run["requests"], again.run["replayed"]) == (0, len(prompts))
        digests.add(digest(output))
    assert len(digests) == 1


def test_another_encoder_in_the_same_folder_is_another_model(encoder: Path) -> None:
    run(write(["Boil an egg.", "Name the sea."]), "a.jsonl", f"hf:{encoder}", dedup=["semantic"])
    build(encoder, seed=1)
    outcome = run(write(["Boil an egg.", "Name the sea."]), "b.jsonl", f"hf:{encoder}", dedup=["semantic"])
    assert outcome.run["requests"] == 2


def test_what_it_cannot_do_is_said_in_one_line(encoder: Path) -> None:
    outcome = run(write(["Boil an egg."]), "a.jsonl", f"hf:{encoder}", diverse=1, param=["dimensions=8"])
    assert outcome.result["funnel"]["failed"] == {"refused (HTTP 400)": 1}
    (failed,) = rows("a.rejected.jsonl")
    assert failed["record"]["error"] == "hf: embedding models have no parameters: dimensions"
    (encoder / "1_Pooling").mkdir()
    (encoder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))
    with pytest.raises(InputError, match="asks for another pooling than the mean"):
        Embedder(f"hf:{encoder}")
    with pytest.raises(InputError, match="no such folder"):
        run(write(["Boil an egg."]), "b.jsonl", "hf:./missing", diverse=1)
