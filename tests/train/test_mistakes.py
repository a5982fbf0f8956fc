"""Typical mistakes with the commands of training: each is one clear line that names the way out."""

import json
import shlex
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from typer.testing import CliRunner

from datagen.commands.main import app
from tests.train.tasks import problems, write_preferences, write_sft


def write(path: str, *lines: dict[str, Any]) -> None:
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(autouse=True)
def files(fresh: Path, taught: Path, adapter: Path) -> None:
    """Rows of each kind, a model, an adapter and the folder of a reward model."""
    write_sft(Path("rows.jsonl"), problems(0)[:20])
    write_preferences(Path("prefs.jsonl"), problems(0)[:20])
    write("prompts.jsonl", *({"prompt": text} for text, _ in problems(0)[:20]))
    write("samples.jsonl", *({"prompt": text, "responses": ["1", "2"]} for text, _ in problems(0)[:20]))
    write("texts.jsonl", {"text": "A text of its own."})
    for name, folder in (("rows.sft", fresh), ("taught", taught), ("rows.lora", adapter), ("prefs.reward", fresh)):
        copytree(folder, name)
    Path("prefs.reward/reward.json").write_text("{}")


MISTAKES = [
    # rows of another kind
    ("sft prefs.jsonl", "Preferences go to 'datagen train dpo'"),
    ("sft texts.jsonl", "Documents go to 'datagen train pretrain'"),
    ("sft samples.jsonl", "Samples go to 'datagen judge', and judged ones to 'datagen pairs'"),
    ("sft prompts.jsonl", "no row has a response; answer them first: datagen respond prompts.jsonl"),
    ("pretrain rows.jsonl", "Prompts with responses go to 'datagen train sft'"),
    ("dpo rows.jsonl --model rows.sft", "make them with 'datagen pairs'"),
    ("dpo samples.jsonl --model rows.sft", "Samples go to 'datagen judge', and judged ones to 'datagen pairs'"),
    ("reward rows.jsonl --model rows.sft", "make them with 'datagen judge'"),
    ("ppo prefs.jsonl --model rows.sft --reward verifier:answer", '--format prompt takes a "prompt" alone'),
    ("grpo texts.jsonl --model rows.sft --reward verifier:answer", "Documents go to 'datagen train pretrain'"),
    ("score prompts.jsonl --reward verifier:answer", "make them with 'datagen respond -k 4'"),
    # a model
    ("sft rows.jsonl --model rows.lora -o out", "is a LoRA adapter; merge it first: datagen train merge rows.lora"),
    ("sft rows.jsonl --model prefs.reward -o out", "is a reward model: it scores answers and writes none"),
    ("chat prefs.reward", "Use it as --reward prefs.reward"),
    ("sft rows.jsonl --model ./rows.sfft", "model ./rows.sfft: no such folder (there is rows.sft)"),
    ("sft rows.jsonl --model nowhere", "model nowhere: no folder here and not in the hub's cache"),
    ("sft rows.jsonl --model rows.jsonl", "is a file; a model is a folder"),
    ("sft rows.jsonl --lora", "--lora adapts a trained model"),
    ("eval tiny rows.jsonl", "model tiny: is untrained; name the folder of a trained model"),
    ("eval nowhere rows.jsonl", "model nowhere: no folder here"),
    ("merge rows.sft", "so it is no LoRA adapter; nothing to merge"),
    # a teacher
    ("distill prompts.jsonl --model rows.sft", "--teacher: name the model to learn from"),
    ("distill prompts.jsonl --teacher rows.sft", "--model and --teacher are trained models of one vocabulary"),
    ("distill prompts.jsonl --model rows.sft --teacher rows.sft", "has the weights of --model; there is nothing to"),
    ("distill prompts.jsonl --model rows.sft --teacher nowhere", "model nowhere: no folder here and not in the hub's"),
    ("distill prompts.jsonl --model rows.sft --teacher rows.lora", "is a LoRA adapter; merge it first"),
    ("distill prompts.jsonl --model rows.sft --teacher taught --on-policy 0.5", "20 rows have no response to learn on"),
    ("distill rows.jsonl --model rows.sft --teacher taught --lora-dropout 0.1 --lora", "trains without dropout"),
    # a reward
    ("ppo prompts.jsonl --model rows.sft", "--reward: name what scores the answers"),
    ("ppo prompts.jsonl --model rows.sft --reward rows.sft", "not a reward model's folder (no reward.json in it)"),
    ("ppo prompts.jsonl --model rows.sft --reward none", "--reward none: no such folder"),
    ("ppo prompts.jsonl --model rows.sft --reward verifier:truth", "verifier truth: expected one of answer"),
    (
        "grpo rows.jsonl --model rows.sft --reward verifier:answer --reward verifier:answer",
        "--reward verifier:answer: is named twice; give it once, with a weight: '2*verifier:answer'",
    ),
    # a file, an option
    ("sft row.jsonl", "row.jsonl: no such file (there is rows.jsonl)"),
    ("sft rows.jsonl -o prompts.jsonl", "-o prompts.jsonl: is a file; the output of training is a folder"),
    ("eval rows.sft rows.jsonl -o new/answers.jsonl", "-o new/answers.jsonl: no such folder new"),
    ("sft rows.jsonl --schedule cosinus", "--schedule cosinus: expected one of cosine"),
    ("sft rows.jsonl --batch-size 0", "--batch-size 0: at least 1"),
    ("sft rows.jsonl --epoch 2", "no such option --epoch. Did you mean --epochs?"),
    ("sfft rows.jsonl", "Did you mean 'sft'?"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_in_training_is_one_line_that_names_the_way_out(line: str, says: str) -> None:
    ran = CliRunner().invoke(app, ["train", *shlex.split(line)], prog_name="datagen", catch_exceptions=False)
    errors = [text for text in ran.stderr.splitlines() if text.startswith("error: ")]
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert len(errors) == 1 and says in errors[0], ran.stderr
    assert not list(Path().rglob("*.safetensors.part")) and not list(Path().glob("*/checkpoints"))


@pytest.mark.parametrize("wrong", ["--model prefs.reward", "--model rows.lora", "--model rows.sft --max-length 8"])
def test_after_a_mistake_the_right_command_works_in_the_same_folder(wrong: str) -> None:
    settings = ["--steps", "1", "--held-out", "0", "-q", "-o", "out"]
    for options, code in ((wrong, 2), ("--model rows.sft", 0)):
        line = ["train", "sft", "rows.jsonl", *shlex.split(options), *settings]
        ran = CliRunner().invoke(app, line, prog_name="datagen", catch_exceptions=False)
        assert ran.exit_code == code, ran.stderr
