"""Training runs in a page: how each ended, its checks and alarms, and its curves."""

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup

from datagen.records.record import Row
from datagen.report.plot import chart, plot
from datagen.report.tables import PageTable, table
from datagen.report.text import visible

PANELS = {
    "loss": ("loss", "eval_loss"),
    "reward": (
        "reward",
        "reward_after_kl",
        "eval_reward",
        "rewards/chosen",
        "rewards/rejected",
        "eval_rewards/chosen",
        "eval_rewards/rejected",
    ),
    "log-probability of answers": ("logps/chosen", "logps/rejected", "eval_logps/chosen", "eval_logps/rejected"),
    "margin": ("margin", "eval_margin"),
    "KL to the start per answer, entropy per token, in nats": ("kl", "kl_k3", "kl_token", "entropy", "sampler_gap"),
    "log-probability per token of the answers under the start, in nats": ("fluency",),
    "share": (
        "eval_exact_match",
        "eval_rouge_l",
        "eval_also_exact_match",
        "eval_also_rouge_l",
        "rewards/accuracies",
        "eval_rewards/accuracies",
        "accuracy",
        "eval_accuracy",
        "eval_macro_f1",
        "mean_token_accuracy",
        "eval_mean_token_accuracy",
    ),
    "answers that end, repetition, ratios clipped, variance explained, groups without signal": (
        "ended",
        "repetition",
        "clip_fraction",
        "explained_variance",
        "no_signal",
    ),
    "tokens per answer": ("response_length", "eval_response_length"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
}
"""Plots of a training run, and the metrics drawn in each."""
MOST_POINTS = 240
"""Points of a curve; of a longer one, every second, third ... is drawn, and the last."""
Curves = Mapping[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class TrainingSection:
    """What the page says about a run."""

    name: str
    anchor: str
    command: str
    outcome: str
    learned: bool | None
    """None for a run that has not ended."""
    facts: list[tuple[str, str]]
    tables: list[PageTable]
    charts: list[Markup]
    alarms: list[tuple[str, str]]
    is_sim: bool
    data: str
    """The file of rows that it was trained on, as its report names it."""


def is_run(folder: Path) -> bool:
    """Say whether a folder holds a training run."""
    return str(read_object(folder / "run" / "config.json").get("command")).startswith("train ")


def read_object(path: Path) -> Row:
    """Read a JSON object; an empty one if it is not there, or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_bytes())
        return value if isinstance(value, dict) else {}
    return {}


def training_section(folder: Path, anchor: str) -> TrainingSection:
    """Read a run: one that has ended, or one that is still going on."""
    config, report = read_object(folder / "run" / "config.json"), read_object(folder / "run" / "report.json")
    result, run = part(report, "result"), part(report, "run")
    rows, makers = part(result, "rows"), part(part(result, "rows"), "makers")
    parameters = part(result, "parameters")
    facts = {
        "model": run.get("model", config.get("model")),
        "data": run.get("data"),
        "steps": result.get("steps"),
        "rows": rows.get("train"),
        "held out": rows.get("held_out"),
        "dropped": sum(part(rows, "dropped").values()) if rows else None,
        "parameters trained": parameters.get("trained"),
        "learning rate": config.get("learning_rate"),
        "device": run.get("device"),
    }
    return TrainingSection(
        folder.name,
        anchor,
        str(config.get("command")),
        str(result.get("outcome") or "not finished: the same command goes on from its newest checkpoint"),
        result.get("learned"),
        [(name, f"{value:,}" if isinstance(value, int | float) else str(value)) for name, value in facts.items()
         if value not in (None, "")],
        [one for one in (measured_table(result), check_table(result)) if one.lines],
        [Markup(chart(group)) for group in draw(read_curves(folder))],
        [(str(name), str(text)) for name, text in part(result, "alarms").items()],
        any(str(name).startswith("sim") for name in makers),
        str(run.get("data") or ""),
    )  # fmt: skip


def part(row: Row, name: str) -> Row:
    """Return a part of a report; an empty one if there is none."""
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def measured_table(result: Row) -> PageTable:
    """Return what was measured on held-out rows, before and after."""
    start, end = part(result, "start"), part(result, "end")
    lines = [[name.removeprefix("eval_"), number(start.get(name)), number(value)] for name, value in end.items()]
    return table("Measured on held-out rows", ["", "before", "after"], lines)


def check_table(result: Row) -> PageTable:
    """Return what the checks before the first step said."""
    return table(
        "Checks before the first step", ["check", "finding"],
        [[str(name), str(text)] for name, text in part(result, "checks").items()], texts=[1],
    )  # fmt: skip


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def read_curves(folder: Path) -> Curves:
    """Read the metrics of a run, by name."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with suppress(OSError), (folder / "run" / "metrics.jsonl").open("rb") as file:
        for raw in file:
            line = parsed(raw)
            if isinstance(step := line.get("step"), int):
                for name, value in line.items():
                    if isinstance(value, int | float) and isfinite(value):
                        curves[name].append((step, value))
    return curves


def parsed(raw: bytes) -> Row:
    """Return the object in a line; an empty one if it is damaged."""
    with suppress(ValueError, RecursionError):
        value = json.loads(raw)
        return value if isinstance(value, dict) else {}
    return {}


def draw(curves: Curves) -> list[str]:
    """Draw the panels of a run that have curves."""
    groups = (
        plot(title, {visible(name): thinned(curves[name]) for name in names if name in curves})
        for title, names in PANELS.items()
    )
    return [group for group in groups if group]


def thinned(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a curve of at most about MOST_POINTS points."""
    every = -(-len(curve) // MOST_POINTS)
    return curve if every <= 1 else [*curve[:-1:every], curve[-1]]
