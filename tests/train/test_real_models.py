"""What models of well-known families bring along, and what loading and training them must leave as it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datagen.llm.local.generation import open_model
from datagen_train import reward
from datagen_train.models.load import Loaded, load
from datagen_train.models.reward_model import end_token, raw_scores, separate_padding, with_score_head
from datagen_train.models.tokens import fit_tokenizer
from datagen_train.options import ModelOptions
from datagen_train.rewards.reward_model import load_reward
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions
from tests.train.conftest import colour_rows, encode, teach
from tests.train.real_models import REAL, make_real
from tests.train.runs import train

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
    result = evaluate.run("low", str(write_rows()), EvalOptions())
    assert result["exact_match"] == 1.0 and result["loss"] < 0.1, result


def write_rows() -> Path:
    """Write the rows to a file."""
    path = Path("rows.jsonl")
    path.write_text("".join(f"{json.dumps({'prompt': row.prompt, 'response': row.response})}\n" for row in ROWS))
    return path


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
    Path("pairs.jsonl").write_text('{"prompt": "Sky?", "chosen": "blue", "rejected": "red"}\n' * 3)
    train(reward, "pairs.jsonl", model="model", output="rm", steps=4, dtype="bfloat16", held_out=0, batch_size=3)
    blue, red = load_reward("rm").score(["Sky?"] * 2, ["blue", "red"])
    assert blue > red
