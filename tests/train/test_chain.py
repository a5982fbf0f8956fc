"""From seeds to an aligned model with commands only, offline; each reads the output of the one before."""

import json
from pathlib import Path

from typer.testing import CliRunner

from datagen.commands.main import app
from tests.jobs import rows, write_seeds


def succeeds(*arguments: str) -> str:
    ran = CliRunner().invoke(app, list(arguments), prog_name="datagen", catch_exceptions=False)
    assert ran.exit_code in ((0, 3) if "train" in arguments else (0,)), ran.output
    return ran.stdout


def run_json(*arguments: str) -> dict[str, object]:
    return dict(json.loads(succeeds(*arguments, "--json"))["result"])


def test_seeds_become_preferences_and_preferences_a_model() -> None:
    seeds = str(write_seeds(8))
    succeeds("evolve", seeds, "--model", "sim", "--rounds", "1", "-o", "rows.jsonl", "-q")
    answering = ["--model", "sim:skill=0.5,refuse=0.2", "-k", "4", "-o", "samples.jsonl", "-q"]
    succeeds("respond", "rows.jsonl", *answering)
    succeeds("judge", "samples.jsonl", "--by", "compare", "--model", "sim:skill=0.9", "-o", "ranked.jsonl", "-q")
    succeeds("pairs", "ranked.jsonl", "--by", "all", "-o", "pairs.jsonl", "-q")
    pairs, prompts = rows("pairs.jsonl"), {row["prompt"]: row for row in rows("samples.jsonl")}
    assert len(pairs) >= 4
    for row in pairs:
        assert {row["chosen"], row["rejected"]} <= set(prompts[row["prompt"]]["responses"])
    sft = run_json("train", "sft", "rows.jsonl", "-o", "sft", "--steps", "6", "--held-out", "0.5", "-q")
    assert sft["end"]["eval_loss"] < sft["start"]["eval_loss"]  # type: ignore[index]
    dpo_options = ["--model", "sft", "-o", "dpo", "--steps", "4", "--batch-size", "4", "--held-out", "0.3", "-q"]
    dpo = run_json("train", "dpo", "pairs.jsonl", *dpo_options)
    assert dpo["rows"]["read"] == len(pairs)  # type: ignore[index]
    assert dpo["rows"]["makers"] == {"sim:skill=0.5,refuse=0.2/1": len(pairs), "sim:skill=0.9/1": len(pairs)}  # type: ignore[index]
    assert "`sim` is a procedural teacher" in Path("dpo/README.md").read_text(), "writers and judges are named"
    assert Path("dpo/model.safetensors").stat().st_size > 0
    card = Path("sft/README.md").read_text()
    assert "`sim` is a procedural teacher" in card, "the card says who taught it"
