"""Every command that writes preferences prints the same table: their length bias, and the check of their judge."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from datagen.commands.main import app
from datagen.commands.table import COMMANDS, load_methods
from tests.jobs import rows

QUESTIONS = Path(__file__).parents[2] / "examples/questions.jsonl"
GAMES = Path(__file__).parents[2] / "examples/game24.jsonl"
SAMPLES = f"respond {QUESTIONS} --strategy cot -k 4 --verify answer --model sim:skill=0.5 --teacher sim:skill=0.5 "
SAMPLES += "--teacher sim:skill=0.9 -o samples.jsonl"
RANKED = "judge samples.jsonl --by compare --model sim -o ranked.jsonl"
TEACHER = f"respond {QUESTIONS} --strategy cot --model sim -o teacher.jsonl"
ANSWERS = f"respond {QUESTIONS} --strategy cot --model sim:skill=0.2 -o answers.jsonl"
IMPROVE, RANKS = ("edit", "critique", "rewrite", "constitution"), ("best_worst", "best_random", "all")
"""Variants whose preferences follow the verdicts of a judge."""
WRITERS = {
    "constraints ": [f"constraints {QUESTIONS} --pairs --model sim:skill=0.7"],
    "respond tree": [f"respond {GAMES} --strategy tree --step-preferences --limit 2 --model sim:skill=0.7"],
    **{
        f"improve {by}": [ANSWERS, f"improve answers.jsonl --by {by} --pairs --model sim --allow-self"]
        for by in IMPROVE
    },
    **{f"pairs {by}": [SAMPLES, RANKED, f"pairs ranked.jsonl --by {by}"] for by in RANKS},
    "pairs verified": [SAMPLES, "pairs samples.jsonl --by verified"],
    "pairs spin": [SAMPLES, TEACHER, "pairs samples.jsonl --by spin --teacher teacher.jsonl"],
    "pairs delta": [SAMPLES, "pairs samples.jsonl --by delta --strong sim:skill=0.9"],
}
"""Command and variant to what is run; the last command writes the preferences."""


def test_every_command_that_can_write_preferences_is_tried() -> None:
    commands = (name for name, command in COMMANDS.items() if command.methods)
    methods = {f"{name} {variant}": method for name in commands for variant, method in load_methods(name).items()}
    assert WRITERS.keys() == {name for name, method in methods.items() if "chosen" in method.unique}


@pytest.mark.parametrize("writer", WRITERS)
def test_preferences_come_with_their_length_bias_and_the_check_of_their_judge(writer: str) -> None:
    for command in WRITERS[writer][:-1]:
        assert CliRunner().invoke(app, command.split(), catch_exceptions=False).exit_code in (0, 3)
    ran = CliRunner().invoke(app, [*WRITERS[writer][-1].split(), "-o", "out.jsonl"], catch_exceptions=False)
    pairs = rows("out.jsonl")
    longer = [(len(pair["chosen"]) > len(pair["rejected"])) for pair in pairs]
    equal = [(len(pair["chosen"]) == len(pair["rejected"])) for pair in pairs]
    share = f"{100 * (sum(longer) + sum(equal) / 2) / len(pairs):.1f} %"
    assert "chosen is the longer" in ran.stderr and share in ran.stderr
    assert ("accuracy against people" in ran.stderr) == writer.endswith((*IMPROVE, *RANKS))
