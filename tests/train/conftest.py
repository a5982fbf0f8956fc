"""Tiny models for the tests of `train`: an untrained one, and one that has memorised a few answers."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datagen.records.record import Record
from tests.once import SEEDS, once

if TYPE_CHECKING:
    from datagen_train.data.encode import Encoded
    from datagen_train.models.load import Loaded

if find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing model is missing at once

COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "rose": "red"}
STEPS = 60


def colour_rows() -> list[Record]:
    """Return questions with three different answers."""
    prompts = {f"What colour is the {thing}?": colour for thing, colour in COLOURS.items()}
    return [Record(f"{i:016x}", prompt, answer) for i, (prompt, answer) in enumerate(prompts.items())]


def encode(loaded: "Loaded", rows: list[Record]) -> "list[Encoded]":
    from datagen_train.data.encode import Encoder, conversation
    from datagen_train.models.tokens import turn_end_ids

    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), 256)
    return [encoder.answer(conversation(row)) for row in rows]


def make() -> "Loaded":
    """Make a tiny model whose tokenizer knows the words of the rows."""
    from datagen_train.models.load import Loaded
    from datagen_train.models.tiny import make_tiny
    from datagen_train.models.tokens import fit_tokenizer

    model, tokenizer = make_tiny("tiny", [f"{row.prompt} {row.response}" for row in colour_rows()], 0)
    return Loaded(model, tokenizer, fit_tokenizer(model, tokenizer))


def teach(loaded: "Loaded", rows: list[Record], steps: int = STEPS) -> None:
    """Train the trainable parameters until the answers are memorised."""
    from datagen_train.models.tokens import pad

    encoded = encode(loaded, rows)
    ids, labels = pad([sequence.ids for sequence in encoded], 0), pad([sequence.labels for sequence in encoded], -100)
    trained = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=6e-3)
    loaded.model.train()
    for _ in range(steps):
        loaded.model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.model.eval()


def save(loaded: "Loaded", folder: Path) -> Path:
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=SEEDS, ids=lambda seed: f"seed {seed}")
def biased_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "tuple[int, str]":
    """A seed, and the model that it gives: it can add, and most of its answers have the same error."""
    seed: int = request.param
    return seed, str(once(tmp_path_factory, f"biased-{seed}", lambda folder: teach_habit(folder, seed)) / "model")


def teach_habit(folder: Path, seed: int) -> None:
    from datagen_train import sft
    from tests.train.runs import train
    from tests.train.tasks import biased, problems, write_sft

    write_sft(folder / "biased.jsonl", biased(problems(0)[:6000], seed))
    train(sft, folder / "biased.jsonl", output=str(folder / "model"), seed=seed, steps=700, eval_every=700)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model; its answers have no meaning and no end."""
    return once(tmp_path_factory, "fresh", lambda folder: save(make(), folder))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has memorised the colours."""
    return once(tmp_path_factory, "taught", teach_colours)


def teach_colours(folder: Path) -> None:
    loaded = make()
    teach(loaded, colour_rows())
    save(loaded, folder)


@pytest.fixture(scope="session")
def adapter(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for `taught`, trained on permuted colours."""
    return once(tmp_path_factory, "adapter", lambda folder: teach_permuted(folder, taught))


def teach_permuted(folder: Path, taught: Path) -> None:
    from datagen_train.models.load import choose_trained
    from datagen_train.options import ModelOptions
    from datagen_train.tools.evaluate import load_trained

    loaded = load_trained(str(taught), "float32")
    loaded.model = choose_trained(loaded.model, ModelOptions(lora=True, lora_rank=8))
    turned = {"blue": "red", "green": "blue", "red": "green"}
    rows = [Record(row.id, row.prompt, turned[row.response or ""]) for row in colour_rows()]
    teach(loaded, rows)
    save(loaded, folder)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies a model, so that a test can damage it."""
    from shutil import copytree

    return lambda folder: Path(copytree(folder, tmp_path / f"copy of {folder.name}"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model after six steps on sums, for tests that do not need a good one."""
    return str(once(tmp_path_factory, "sums", train_briefly) / "base")


def train_briefly(folder: Path) -> None:
    from datagen_train import sft
    from tests.train.runs import train
    from tests.train.tasks import problems, write_sft

    write_sft(folder / "few.jsonl", problems(0)[:200])
    train(sft, folder / "few.jsonl", output=str(folder / "base"), steps=6)


@pytest.fixture(scope="session")
def teacher(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with the vocabulary of `base`, after more steps on the same sums."""
    return str(once(tmp_path_factory, "teacher", lambda folder: train_longer(folder, base)) / "model")


def train_longer(folder: Path, base: str) -> None:
    from datagen_train import sft
    from tests.train.runs import train

    rows = Path(base).parent / "few.jsonl"
    train(sft, rows, model=base, output=str(folder / "model"), steps=10, held_out=0)


@pytest.fixture(scope="session")
def habit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small sums, and a model whose answers are one too high."""
    return once(tmp_path_factory, "habit", teach_small_habit)


def teach_small_habit(folder: Path) -> None:
    from datagen_train import sft
    from tests.train.runs import train
    from tests.train.tasks import biased, problems, with_small_numbers, write_sft

    sums = with_small_numbers(problems(0))
    write_sft(folder / "biased.jsonl", biased(sums, 2))
    write_sft(folder / "sums.jsonl", sums)
    train(sft, folder / "biased.jsonl", output=str(folder / "base"), seed=2, steps=160, eval_every=160)


@pytest.fixture
def few() -> str:
    """Two hundred sums to train on."""
    from tests.train.tasks import problems, write_sft

    write_sft(Path("few.jsonl"), problems(0)[:200])
    return "few.jsonl"
