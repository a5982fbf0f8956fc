"""What models of well-known families bring along, and what loading and training them must leave as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datagen.llm.local.generation import open_model
from datagen_train import dpo, pretrain, reward, sft
from datagen_train.data.encode import Encoder
from datagen_train.models.load import Loaded, load
from datagen_train.models.reward_model import end_token, raw_scores, separate_padding, with_score_head
from datagen_train.models.tokens import fit_tokenizer, turn_end_ids
from datagen_train.options import ModelOptions, SftOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.conftest import colour_rows, encode, teach
from tests.train.real_models import REAL, make_real
from tests.train.runs import Notes, metrics, train
from tests.train.tasks import write_rows

ROWS = colour_rows()
TEXTS = [f"{row.prompt} {row.response}" for row in ROWS]


def loss(loaded: Loaded) -> float:
    """Return the mean loss of the rows, each by itself: without any padding."""
    losses = []
    for sequence in encode(loaded, ROWS):
        ids, labels = torch.tensor([sequence.ids]), torch.tensor([sequence.labels])
        with torch.no_grad():
            losses.append(float(loaded.model(input_ids=ids, labels=labels).loss))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", REAL)
def test_loading_leaves_the_model_as_it_is(name: str) -> None:
    """No row is added, no weight changes, and the loss of a text is that of the plain library."""
    model, tokenizer = make_real(name, TEXTS)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    loaded = load("model", ModelOptions(), [], seed=0)
    before, after = model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    text = torch.tensor([tokenizer("What colour is the sky? blue")["input_ids"]])
    with torch.no_grad():
        theirs, ours = (one(input_ids=text, labels=text).loss.item() for one in (model.eval(), loaded.model.eval()))
    assert ours == theirs
    assert tokenizer.get_vocab().items() <= loaded.tokenizer.get_vocab().items()
    assert len(loaded.tokenizer) <= loaded.model.get_input_embeddings().num_embeddings
    for_use, _ = open_model(Path("model"))
    assert all(torch.equal(value, for_use.state_dict()[key]) for key, value in before.items())


def test_padding_takes_no_probability_where_logits_lie_low() -> None:
    """A row added for padding would have a logit of 0, and win everywhere."""
    model, tokenizer = make_real("GPT-2", TEXTS)
    with torch.no_grad():
        model.transformer.ln_f.bias[0], model.get_input_embeddings().weight[:, 0] = 35.0, -1.0
    loaded = Loaded(model, tokenizer, fit_tokenizer(model, tokenizer))
    teach(loaded, ROWS, steps=80)
    assert model(torch.tensor([[1, 2, 3]])).logits.max() < -10
    assert loss(loaded) < 0.1
    loaded.model.save_pretrained("low")
    loaded.tokenizer.save_pretrained("low")
    result = evaluate.run("low", str(write_answers()), EvalOptions())
    assert result["exact_match"] == 1.0 and result["loss"] < 0.1, result


def write_answers() -> Path:
    """Write the rows to a file."""
    return write_rows("rows.jsonl", [{"prompt": row.prompt, "response": row.response} for row in ROWS])


@pytest.mark.parametrize("name", REAL)
def test_a_score_is_read_at_the_end_token_by_the_plain_library(name: str) -> None:
    """The library finds the last token by the id of the padding: no answer may end in it."""
    model, tokenizer = make_real(name, TEXTS)
    loaded = Loaded(model, tokenizer, fit_tokenizer(model, tokenizer))
    separate_padding(loaded.model, loaded.tokenizer)
    assert tokenizer.pad_token_id != end_token(tokenizer)
    scorer = with_score_head(loaded.model, seed=0)
    sequences = [sequence.ids for sequence in encode(loaded, ROWS)] + [[7, 8, end_token(tokenizer)]]
    pad_id = int(tokenizer.pad_token_id)
    padded = raw_scores(scorer, [np.array(ids) for ids in sequences], pad_id=pad_id, batch_size=9)
    with torch.no_grad():
        hidden = [scorer.base_model(torch.tensor([ids]))[0][0, -1] for ids in sequences]
        expected = [float(scorer.score(state)) for state in hidden]
    assert padded == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_scores_are_float32_where_the_trunk_is_not() -> None:
    """In bfloat16 half of two thousand scores would be equal to another one."""
    model, tokenizer = make_real("Qwen2", TEXTS)
    scorer = with_score_head(model.to(torch.bfloat16), seed=0)
    chance = np.random.default_rng(0)
    texts = [np.append(chance.integers(0, 250, size=6), end_token(tokenizer)) for _ in range(500)]
    scores = raw_scores(scorer, texts, pad_id=int(tokenizer.pad_token_id), batch_size=64)
    assert len(set(scores)) > 490


def test_a_reward_model_learns_in_bfloat16() -> None:
    model, tokenizer = make_real("Qwen2", TEXTS)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    write_rows("pairs.jsonl", [{"prompt": "Sky?", "chosen": "blue", "rejected": "red"}] * 3)
    train(reward, "pairs.jsonl", model="model", output="rm", steps=4, dtype="bfloat16", held_out=0, batch_size=3)
    blue, red = load_reward("rm").score(["Sky?"] * 2, ["blue", "red"])
    assert blue > red


STARTED = {"Llama 3 base", "Mistral", "Gemma 2", "OPT", "OPT, narrow embedding"}
"""What the model was trained on begins with a start token."""


@pytest.mark.parametrize("name", REAL)
def test_a_text_begins_with_the_start_token_where_the_family_was_trained_behind_one(name: str) -> None:
    model, tokenizer = make_real(name, TEXTS)
    fit_tokenizer(model, tokenizer)
    encoder = Encoder(tokenizer, turn_end_ids(model, tokenizer), 256)
    (document,) = encoder.document("The sky is blue.")
    prompt = encoder.prompt("What colour is the sky?")
    start = tokenizer.bos_token_id
    assert document.ids[-1] == tokenizer.eos_token_id
    if name in STARTED:
        assert (document.ids[0], prompt[0]) == (start, start)
    assert list(document.ids).count(start) == list(document.ids[:1]).count(start) + (start == tokenizer.eos_token_id)
    assert prompt[:2] != [start, start]


def test_a_document_that_holds_a_special_token_is_text() -> None:
    _, tokenizer = make_real("BLOOM", TEXTS)
    encoder = Encoder(tokenizer, {tokenizer.eos_token_id}, 256)
    (document,) = encoder.document("A list ends in </s>, and <unk> is unknown.")
    assert tokenizer.decode(document.ids[:-1]) == "A list ends in </s>, and <unk> is unknown."
    assert not {tokenizer.unk_token_id, tokenizer.eos_token_id} & set(document.ids[:-1])


def test_a_short_context_is_looked_at_before_the_first_step() -> None:
    """Default options, and a row that is longer than all positions."""
    model, tokenizer = make_real("GPT-2, 300 positions", TEXTS)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    long, short = "What colour is the sky? " * 30, "blue"
    write_rows("rows.jsonl", [{"prompt": "Sky?", "response": text} for text in (long, short, short)])
    write_rows("texts.jsonl", [{"text": long * 2}])
    write_rows("pairs.jsonl", [{"prompt": "Sky?", "chosen": text, "rejected": "red"} for text in (long, short)])
    notes = Notes()
    common: dict[str, Any] = {"model": "model", "steps": 1, "held_out": 0, "batch_size": 2}
    for module, data in ((sft, "rows.jsonl"), (pretrain, "texts.jsonl"), (dpo, "pairs.jsonl"), (reward, "pairs.jsonl")):
        train(module, data, notes=notes, output=f"out-{module.__name__}", **common)
    assert notes.messages.count("--max-length 1024: the model takes 300 tokens, so that is used") == 4


def test_an_epoch_of_packed_rows_shows_each_row_once() -> None:
    rows = [{"prompt": row.prompt, "response": row.response} for row in ROWS] * 20
    write_rows("rows.jsonl", rows)
    common: dict[str, Any] = {"model": "tiny", "epochs": 1, "batch_size": 2, "held_out": 0, "max_length": 128}
    for packing in (False, True):
        train(sft, "rows.jsonl", SftOptions(packing=packing), output=f"out-{packing}", **common)
    alone, packed = (max(line.get("num_tokens", 0) for line in metrics(f"out-{packing}")) for packing in (False, True))
    assert packed == pytest.approx(alone, rel=0.1)


def test_adapters_find_their_base_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_real("Qwen2", TEXTS)
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")
    train(sft, str(write_answers()), model="base", output="adapters", steps=2, held_out=0, batch_size=6, lora=True)
    folder = Path("adapters").resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded, _ = open_model(folder)
    assert loaded.get_input_embeddings().num_embeddings == model.get_input_embeddings().num_embeddings
