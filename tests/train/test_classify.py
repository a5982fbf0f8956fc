"""A classifier learns labels, and its folder is one of the library's: pipelines, rewards and `train eval` agree."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, pipeline

from datagen.errors import InputError
from datagen.llm.local.weights import language_model
from datagen.records.labelled import LABELLED
from datagen.records.reader import Reader
from datagen.records.record import BadLine
from datagen_train import classify
from datagen_train.data.labels import LabelledExample
from datagen_train.data.split import is_held_out
from datagen_train.models.classifier import open_classifier
from datagen_train.options import ClassifyOptions, TrainOptions
from datagen_train.rewards.classifier import Classifier
from datagen_train.run.label_metrics import by_label, measure_labels
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.real_models import make_real
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import write_rows

WORDS = {"good": "great fine lovely superb", "bad": "poor dull awful boring", "neither": "red long short new"}
THINGS = "film book play song show meal".split()
SHORT: dict[str, Any] = {"steps": 40, "seed": 1, "held_out": 0.2, "batch_size": 16}


def reviews(number: int = 150) -> Iterator[dict[str, str]]:
    chance = Random(3)
    for place in range(number):
        label = chance.choice(sorted(WORDS))
        text = f"{place}: the {chance.choice(THINGS)} was {chance.choice(WORDS[label].split())}"
        yield {"text": text, "label": label}


@pytest.fixture
def rows() -> str:
    return str(write_rows("reviews.jsonl", reviews()))


def write_encoder(folder: str) -> str:
    """Write a tiny BERT, as it comes from pre-training: without a pooler and without a head for labels."""
    words = sorted({word for row in reviews() for word in row["text"].replace(":", " :").split()})
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def check_folder(folder: str) -> None:
    """Compare the shares that a pipeline, a reward and `train eval` give to the labels of the same texts."""
    texts = [row["text"] for row in reviews(12)]
    labelled = pipeline("text-classification", model=folder, top_k=None)
    shares = {text: {item["label"]: item["score"] for item in labelled([text])[0]} for text in texts}
    for label in WORDS:
        scores = Classifier(folder, f"{label},logprob")([""] * len(texts), texts)
        assert np.exp(np.array(scores, dtype=float)) == pytest.approx([shares[text][label] for text in texts], abs=1e-5)
    measured = evaluate.run(folder, str(write_rows("dozen.jsonl", reviews(12))), EvalOptions(all=True))
    guesses = [max((share, label) for label, share in shares[text].items())[1] for text in texts]
    right = [guess == row["label"] for guess, row in zip(guesses, reviews(12), strict=True)]
    assert measured["accuracy"] == sum(right) / 12


def test_the_best_checkpoint_is_chosen_by_a_metric_of_labels(rows: str) -> None:
    result = train(classify, rows, output="out", model="tiny", best="macro_f1", eval_every=4, **SHORT)
    curve = {line["step"]: line["eval_macro_f1"] for line in metrics("out") if "eval_macro_f1" in line}
    assert curve[result["best_step"]] == max(curve.values())


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("base", ["GPT-2", "encoder"])
def test_a_classifier_learns_labels(base: str, lora: bool, rows: str) -> None:
    if base == "encoder":
        write_encoder("base")
    else:
        model, tokenizer = make_real(base, [row["text"] for row in reviews()])
        model.save_pretrained("base")
        tokenizer.save_pretrained("base")
    options: dict[str, Any] = {**SHORT, "steps": 100, "model": "base", "lora": lora, "learning_rate": 1e-2}
    if base == "encoder" and lora:
        with pytest.raises(InputError, match=r"pooler.* is new: leave --lora out"):
            train(classify, rows, output="out", **options)
        return
    result = train(classify, rows, output="out", **options)
    assert result["start"]["eval_accuracy"] < 0.7
    assert result["end"]["eval_accuracy"] > 0.9
    assert not Path("out", "adapter_config.json").exists()
    check_folder("out")


@pytest.mark.slow
@pytest.mark.parametrize(("base", "lora"), [("encoder", False), ("GPT-2", True)])
def test_a_base_in_16_bits_gives_a_classifier_in_16_bits(base: str, lora: bool, rows: str) -> None:
    if base == "encoder":
        BertForMaskedLM.from_pretrained(write_encoder("base")).to(torch.bfloat16).save_pretrained("base")
    else:
        model, tokenizer = make_real(base, [row["text"] for row in reviews()])
        model.to(torch.bfloat16).save_pretrained("base")
        tokenizer.save_pretrained("base")
    train(classify, rows, output="out", **{**SHORT, "steps": 2, "model": "base", "lora": lora})
    tensors = load_file("out/model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if not name.startswith("score.")} == {torch.bfloat16}
    assert open_classifier("out")[2] == sorted(WORDS)


def test_the_card_says_how_to_use_the_model_and_what_to_expect(rows: str) -> None:
    result = train(classify, rows, output="out", model="tiny", **SHORT)
    assert set(result["labels"]) == set(WORDS)
    card = Path("out/README.md").read_text()
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == "text-classification"
    guess = pipeline("text-classification", model="out")(classify.EXAMPLE)[0]
    assert f"# `{guess['label']}`: {guess['score']:.4f}" in card


def test_metrics_are_those_of_a_table_of_confusion() -> None:
    """Rows: the label; columns: what was predicted: a: 3 1 0, b: 1 2 0, c: never in the texts."""
    pairs = [(0, 0)] * 3 + [(0, 1)] + [(1, 0)] + [(1, 1)] * 2
    examples = [LabelledExample(np.array([1], dtype=np.int32), truth, False) for truth, _ in pairs]
    logits = np.eye(3)[[predicted for _, predicted in pairs]]
    qualities = by_label(logits, examples, ["a", "b", "c"])
    assert list(qualities) == ["a", "b"]
    assert (qualities["a"].precision, qualities["a"].recall, qualities["a"].f1) == (3 / 4, 3 / 4, 3 / 4)
    assert (qualities["b"].precision, qualities["b"].recall, qualities["b"].f1) == (2 / 3, 2 / 3, 2 / 3)
    measured = measure_labels(logits, examples, ["a", "b", "c"])
    assert measured["accuracy"] == 5 / 7
    assert measured["macro_f1"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_balanced_labels_count_the_same() -> None:
    examples = [LabelledExample(np.array([1], dtype=np.int32), label, False) for label in [0] * 9 + [1]]
    weights = classify.balance(examples, 2)
    assert 9 * weights[0] == pytest.approx(float(weights[1]))
    assert 9 * weights[0] + weights[1] == pytest.approx(10)


def test_the_same_command_twice_and_parts_of_a_step_give_the_same_model(rows: str) -> None:
    for folder, parts in (("one", 1), ("two", 1), ("parts", 4)):
        train(classify, rows, output=folder, model="tiny", accumulate=parts, **{**SHORT, "steps": 6})
    one, two, parts_of = (Path(folder, "model.safetensors").read_bytes() for folder in ("one", "two", "parts"))
    assert one == two != parts_of
    ends = [metrics(folder)[-1]["eval_loss"] for folder in ("one", "parts")]
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)


@pytest.mark.parametrize(
    ("row", "text", "label"),
    [
        ({"text": "a b", "label": 1}, "a b", "1"),
        ({"text": "a b", "label": True}, "a b", "true"),
        ({"sentence": "a b", "label": 1, "label_text": "good"}, "a b", "good"),
        ({"prompt": "a b", "response": "good"}, "a b", "good"),
        ({"instruction": "Which?", "input": "a b", "output": "good \n"}, "Which?\n\na b", "good"),
        ({"prompt": [{"role": "user", "content": "a b"}], "response": "x"}, "a b", "x"),
    ],
)
def test_labelled_texts_are_read_in_their_layouts(row: dict[str, Any], text: str, label: str) -> None:
    path = write_rows("rows.jsonl", [row])
    with path.open("rb") as file:
        (read,) = Reader("rows.jsonl", file, LABELLED).read()
    assert not isinstance(read, BadLine), read
    assert (read.prompt, read.label) == (text, label)


def test_a_label_that_is_none_is_named_with_its_line() -> None:
    write_rows("rows.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": " "}, {"text": "c", "label": None}])
    with open("rows.jsonl", "rb") as file:
        problems = [str(row) for row in Reader("rows.jsonl", file, LABELLED).read() if isinstance(row, BadLine)]
    assert [problem.partition(": ")[0] for problem in problems] == ["rows.jsonl:2", "rows.jsonl:3"]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["x"] * 30, "every row has the label 'x'"),
        ([str(number) for number in range(30)], "30 labels in 30 rows: these are no labels"),
    ],
)
def test_rows_without_labels_to_learn_are_refused(labels: list[str], says: str) -> None:
    write_rows("rows.jsonl", [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)])
    with pytest.raises(InputError, match=says):
        train(classify, "rows.jsonl", output="out", **SHORT)


def test_a_label_of_held_out_rows_alone_is_named() -> None:
    listed = [{"text": f"text {n}", "label": "a" if n % 2 else "b"} for n in range(40)]
    texts = (f"the only one {number}" for number in range(200))  # the text decides the side
    text = next(text for text in texts if is_held_out(text, SHORT["held_out"]))
    write_rows("rows.jsonl", [*listed, {"text": text, "label": "rare"}])
    notes = Notes()
    train(classify, "rows.jsonl", ClassifyOptions(balance=True), notes, output="out", **{**SHORT, "steps": 1})
    assert any("1 labels, such as rare, are not learned: all their rows are held out" in m for m in notes.messages)


def test_a_classifier_writes_no_text(rows: str) -> None:
    train(classify, rows, output="out", model="tiny", **{**SHORT, "steps": 1})
    with pytest.raises(InputError, match="is a classifier: it labels texts and writes none"):
        language_model("out")
    assert json.loads(Path("out/config.json").read_text())["id2label"]["0"] == "bad"


def test_options_of_answers_are_refused() -> None:
    refused: list[dict[str, Any]] = [{"generate": 4}, {"qlora": True}, {"lora": True, "lora_dropout": 0.1}]
    for options in refused:
        with pytest.raises(InputError):
            ClassifyOptions().check(TrainOptions(model="base", **options))
