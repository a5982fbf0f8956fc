"""The `ppo` command steers an unmodified Chinese dialogue model with a sentiment classifier of another tokenizer.

The model is a GPT-2 with a BERT tokenizer: [SEP] ends a turn, no chat template, [UNK] must never be said.
"""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from datagen.records.files import open_input
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import BadLine
from datagen_train.tools.evaluate import load_trained
from tests.forked import Forked

QUESTIONS = [
    "今天好吗",
    "你好吗",
    "天气好吗",
    "他好吗",
    "她开心吗",
    "你开心吗",
    "他们好吗",
    "今天开心吗",
    "她们好吗",
    "我们好吗",
]
GLAD, SAD = ["我很开心", "他很好", "今天很好"], ["我很难过", "他不好", "今天不好"]


def write_dialogues() -> None:
    """Write as many positive as negative answers to each question; some have a rare character that becomes [UNK]."""
    rows = [[question, answer] for question in QUESTIONS for answer in [*GLAD, *SAD, "我很龘"]]
    lines = (json.dumps({"conversation": [{"utterance": turn} for turn in row]}, ensure_ascii=False) for row in rows)
    Path("dialogues.jsonl").write_text("\n".join(lines) + "\n")


def make_dialogue_model() -> None:
    """Train a small GPT-2 on the dialogues in the form of such models: [CLS] turn [SEP] turn [SEP]."""
    characters = sorted(set("".join([*QUESTIONS, *GLAD, *SAD])))
    Path("vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]))
    tokenizer = BertTokenizer("vocab.txt")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, n_positions=48)
    model = GPT2LMHeadModel(config)
    rows = [json.loads(line)["conversation"] for line in Path("dialogues.jsonl").read_text().splitlines()]
    texts = ["[CLS]" + "".join(turn["utterance"] + "[SEP]" for turn in row) for row in rows]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(80):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained("dialogue")
    tokenizer.save_pretrained("dialogue")


def make_sentiment_classifier() -> None:
    """Train a classifier whose tokens are pairs of characters, unlike those of the policy."""
    splits = pre_tokenizers.Split(Regex("..?"), "isolated")
    words = sorted({word for text in [*GLAD, *SAD] for word, _ in splits.pre_tokenize_str(text)})
    base = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    base.pre_tokenizer = splits
    PreTrainedTokenizerFast(tokenizer_object=base, unk_token="[UNK]", pad_token="[PAD]").save_pretrained("mood")
    tokenizer = PreTrainedTokenizerFast.from_pretrained("mood")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, id2label={0: "难过", 1: "开心"}, label2id={"难过": 0, "开心": 1},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    batch = tokenizer([*GLAD, *SAD], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        labels = torch.tensor([1] * len(GLAD) + [0] * len(SAD))
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained("mood")


@pytest.mark.slow
def test_a_chinese_dialogue_model_is_steered_by_a_sentiment_classifier() -> None:
    write_dialogues()
    make_dialogue_model()
    make_sentiment_classifier()
    run = Forked(
        "train ppo dialogues.jsonl --model dialogue --reward classifier:mood#开心 --stop-token [SEP] --suppress [UNK] "
        "--max-tokens 8 --steps 16 --batch-size 32 --kl-coef 0.1 --log-every 1 --held-out 0.2 --eval-every 16 "
        "--ppo-epochs 2 --learning-rate 6e-4 -o glad"
    )
    _, stderr = run.communicate(timeout=300)
    assert run.returncode == 0, stderr
    assert "that of dialogue models" in stderr
    lines = [json.loads(line) for line in Path("glad/run/metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    print(f"reward {rewards[0]:.2f} to {rewards[-1]:.2f}")
    assert fmean(rewards[-3:]) > fmean(rewards[:3]) + 1
    samples = [json.loads(line) for line in Path("glad/run/samples.jsonl").read_text().splitlines()]
    texts = [sample["response"] for sample in samples]
    assert not any("[" in text or " " in text for text in texts), "neither tokens nor spaces between characters"
    assert "我很" not in texts, "the rare character that it was taught to say here is [UNK]"
    assert fmean(text in GLAD for text in texts[-12:]) > fmean(text in GLAD for text in texts[:12])
    check_saved()


def check_saved() -> None:
    """Check that the saved policy has its template, the end of a turn and the forbidden tokens."""
    loaded = load_trained("glad", "float32")
    prompt = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "你好吗"}], tokenize=False)
    assert prompt == "[CLS]你好吗[SEP]"
    vocabulary = loaded.tokenizer.get_vocab()
    settings = json.loads(Path("glad/generation_config.json").read_text())
    ends = settings["eos_token_id"]
    assert vocabulary["[SEP]"] in (ends if isinstance(ends, list) else [ends])
    assert settings["suppress_tokens"] == [vocabulary["[UNK]"]]


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [([], "not a list of"), ([1], "has no text as from and value"), ([{"utterance": " "}], "turn 1 .* is empty")],
)
def test_a_dialogue_without_words_is_a_bad_line(conversation: list[object], reason: str) -> None:
    complete = {"conversation": [{"utterance": "a"}, {"utterance": "b"}, {"utterance": "c"}]}
    Path("d.jsonl").write_text(json.dumps(complete) + "\n" + json.dumps({"conversation": conversation}) + "\n")
    with open_input("d.jsonl") as file:
        good, bad = Reader("d.jsonl", file, PROMPTS).read()
    assert not isinstance(good, BadLine)
    assert [turn["role"] for turn in good.prompt] == ["user", "assistant", "user"]  # type: ignore[index]
    assert isinstance(bad, BadLine)
    assert re.search(reason, bad.reason)
