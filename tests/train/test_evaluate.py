"""Evaluation: the loss equals a manual one for every batch size; answers come from the model; no state changes."""

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch

from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.record import Record
from datagen_train.data.encode import IGNORED, Encoded
from datagen_train.data.split import is_held_out
from datagen_train.run.metrics import evaluate_generation
from datagen_train.tools.evaluate import load_trained, run, sequence_loss
from datagen_train.tools.options import EvalOptions
from tests.train.conftest import COLOURS, colour_rows, encode

Rows = list[dict[str, str]]


def write(rows: Rows, path: str = "data.jsonl") -> str:
    Path(path).write_bytes(b"".join(map(dump_line, rows)))
    return path


def colours() -> Rows:
    return [{"prompt": str(row.prompt), "response": row.response or ""} for row in colour_rows()]


def make_sequences(loaded: object) -> list[Encoded]:
    """Make sequences of many lengths, with few or many trained tokens."""
    chance, sequences = Random(1), []
    for length in (3, 40, 7, 121, 18, 64, 2):
        ids = [chance.randrange(4, 250) for _ in range(length)]
        sequences.append(Encoded(ids, [token if chance.random() < 0.5 else IGNORED for token in ids]))
    return sequences


def loss_by_hand(folder: Path, encoded: list[Encoded]) -> float:
    """Compute the loss token by token."""
    model, losses = load_trained(str(folder), "float32").model.requires_grad_(False), []
    for sequence in encoded:
        shares = model(input_ids=torch.tensor([sequence.ids])).logits[0].log_softmax(-1)
        losses += [-float(shares[i - 1, t]) for i, t in enumerate(sequence.labels) if i and t != IGNORED]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_loss_is_the_mean_over_trained_tokens_whatever_the_batches(batch_size: int, taught: Path) -> None:
    loaded = load_trained(str(taught), "float32")
    encoded = make_sequences(loaded)
    assert sequence_loss(loaded.model, encoded, batch_size) == pytest.approx(loss_by_hand(taught, encoded), rel=1e-5)


def test_the_loss_of_nothing_is_no_number(fresh: Path) -> None:
    loaded = load_trained(str(fresh), "float32")
    assert math.isnan(sequence_loss(loaded.model, [Encoded([5, 6], [IGNORED, IGNORED])], 4))


def test_a_model_that_knows_the_answers_by_heart_gets_full_marks(taught: Path) -> None:
    result = run(str(taught), write(colours()), EvalOptions(output="answers.jsonl"))
    full = ("exact_match", "rouge_1", "rouge_l", "accuracy", "macro_f1", "ended")
    assert {name: result[name] for name in full} == dict.fromkeys(full, 1.0)
    assert result["rouge_2"] == 0.0, "answers of one word have no bigrams"
    assert result["rows"] == result["answered"] == len(COLOURS)
    assert result["loss"] < 0.05
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [(row["expected"], row["answer"], row["exact"]) for row in answers] == [
        (c, c, True) for c in COLOURS.values()
    ]


def test_a_model_that_babbles_gets_none(fresh: Path) -> None:
    result = run(str(fresh), write(colours()), EvalOptions(max_tokens=8))
    assert (result["exact_match"], result["accuracy"], result["ended"]) == (0.0, 0.0, 0.0)
    assert result["loss"] > 3


def test_generation_is_measured_without_a_trace(taught: Path) -> None:
    loaded = load_trained(str(taught), "float32")
    model, rows = loaded.model.train(), colour_rows()
    still = next(module for module in model.modules() if not list(module.children()))
    still.eval()
    state = torch.random.get_rng_state()
    measured = evaluate_generation(model, loaded.tokenizer, rows, max_tokens=8, batch_size=4, limit=None)
    sequence_loss(model, encode(loaded, rows), 4)
    assert measured["exact_match"] == 1.0
    assert model.training
    assert not still.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_only_as_many_prompts_are_answered_as_wanted(taught: Path) -> None:
    loaded = load_trained(str(taught), "float32")
    wrong = [Record(row.id, row.prompt, "purple") for row in colour_rows()[3:]]
    rows = [Record("0" * 16, "No answer is known."), *colour_rows()[:3], *wrong]
    few = evaluate_generation(loaded.model, loaded.tokenizer, rows, max_tokens=8, batch_size=4, limit=3)
    all_of_them = evaluate_generation(loaded.model, loaded.tokenizer, rows, max_tokens=8, batch_size=4, limit=None)
    assert (few["exact_match"], all_of_them["exact_match"]) == (1.0, 0.5)
    assert evaluate_generation(loaded.model, loaded.tokenizer, rows[:1], max_tokens=8, batch_size=4, limit=1) == {}


def test_what_cannot_be_used_is_counted(taught: Path) -> None:
    data = write([*colours(), {"prompt": "No answer"}, {"prompt": "", "response": "x"}])
    result = run(str(taught), data, EvalOptions(generate=0))
    assert (result["rows"], result["unreadable"], result["dropped"]) == (7, 1, {"no response": 1})
    assert "exact_match" not in result
    with pytest.raises(InputError, match="no row is left"):
        run(str(taught), write([{"prompt": "No answer"}]), EvalOptions())


def test_the_prompts_held_out_of_training_can_be_measured_alone(taught: Path) -> None:
    rows = [{"prompt": f"Question {n}?", "response": "blue"} for n in range(40)]
    result = run(str(taught), write(rows), EvalOptions(held_out=0.5, generate=0))
    assert 0 < result["rows"] == sum(is_held_out(row["prompt"], 0.5) for row in rows) < 40


def test_documents_have_a_loss_and_no_answers(fresh: Path) -> None:
    data = write([{"text": "The sky is blue. " * 20}, {"text": "Grass is green."}])
    result = run(str(fresh), data, EvalOptions(documents=True, max_length=64))
    assert result["rows"] == 2
    assert result["loss"] > 3
    assert "exact_match" not in result


def test_an_adapter_is_measured_on_its_base(adapter: Path) -> None:
    assert run(str(adapter), write(colours()), EvalOptions())["exact_match"] == 0.0


def test_a_toy_made_from_nothing_is_not_measured() -> None:
    with pytest.raises(InputError, match="is untrained"):
        run("tiny", write(colours()), EvalOptions())
