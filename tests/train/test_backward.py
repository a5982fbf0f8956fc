"""Backtranslation with a backward model trained here: it learns to write instructions, also for new texts."""

from pathlib import Path
from random import Random

import pytest

from datagen.generators.backtranslate import Backtranslate, Options
from datagen.records.files import dump_line
from datagen.records.record import Row
from datagen_train import sft
from datagen_train.options import SftOptions
from tests.jobs import perform, rows
from tests.train.runs import train

SUBJECTS = "bread tides bees clocks rivers violins glaciers lamps".split()
SENTENCES = (
    "One who works with {} learns patience before anything else.",
    "In the morning {} need less care than at night.",
    "The best books about {} were written by hand and never printed.",
    "Old people say that {} bring luck to a house by the sea.",
    "Prices of {} rise in spring, when everybody wants some.",
    "A museum in the north keeps the finest {} that were ever found.",
    "Children draw {} with four strokes and a circle around them.",
    "Nobody has yet counted all {} of this country, though some tried.",
    "The word for {} is nearly the same in nine languages.",
    "Dust and heat are what {} suffer from the most.",
    "A law of the last century forbade to sell {} on Sundays.",
    "When it rains for long, {} are the first thing to be looked after.",
    "Songs about {} are sung slowly, and end where they began.",
)


def write_text(subject: str, number: int) -> str:
    """Write a text about a subject; no two have the same order of sentences."""
    chance = Random(f"{subject} {number}")
    return " ".join(sentence.format(subject) for sentence in chance.sample(SENTENCES, len(SENTENCES) - 1))


def question(subject: str) -> str:
    return f"What should one know about {subject}?"


@pytest.mark.slow
def test_a_trained_backward_model_asks_for_what_new_texts_answer() -> None:
    seeds: list[Row] = [{"prompt": question(s), "response": write_text(s, n)} for n in range(25) for s in SUBJECTS]
    Path("seeds.jsonl").write_bytes(b"".join(map(dump_line, seeds)))
    folder = Path("corpus")
    folder.mkdir()
    for subject in SUBJECTS:
        (folder / f"{subject}.md").write_text(f"# Notes\n\n{write_text(subject, 1000)}\n")
    train(
        sft, "seeds.jsonl", SftOptions(backward=True), output="backward", steps=150, batch_size=8, eval_every=150,
        held_out=0,
    )  # fmt: skip
    options = Options(trained=True, threshold=0, untagged=True)
    perform(Backtranslate, folder, "hf:backward", "out.jsonl", options, timeout=60.0, temperature=0.0)
    prompts = {row["meta"]["document"].removesuffix(".md"): row["prompt"] for row in rows("out.jsonl")}
    right = [subject for subject, prompt in prompts.items() if prompt == question(subject)]
    print(f"{len(right)} of {len(SUBJECTS)} texts got their question: {prompts}")
    assert len(right) >= 6
