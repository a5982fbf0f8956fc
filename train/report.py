"""What a run leaves for people: its curves, and a card that says what the model was made of."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from train.plot import page, plot
from train.runs import RunFolder

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
    "nats: KL to the start an answer, entropy a token": ("kl", "kl_k3", "kl_token", "entropy"),
    "share": (
        "eval_exact_match",
        "eval_rouge_l",
        "rewards/accuracies",
        "eval_rewards/accuracies",
        "accuracy",
        "eval_accuracy",
        "mean_token_accuracy",
        "eval_mean_token_accuracy",
    ),
    "answers that end, ratios clipped, variance explained, groups without signal": (
        "ended",
        "clip_fraction",
        "explained_variance",
        "no_signal",
    ),
    "tokens an answer": ("response_length", "eval_response_length"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
}
"""Pictures, and the metrics drawn in each."""
NOT_TOLD = ("eval_entropy", "eval_logits")
"""Metrics that say nothing about how good a model is."""


def write_curves(folder: RunFolder) -> None:
    """Draw the metrics of a run over its steps."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in folder.read_metrics():
        for name, value in line.items():
            curves[name].append((line["step"], value))
    plots = [plot(title, {name: curves[name] for name in names if name in curves}) for title, names in PANELS.items()]
    folder.curves.write_text(page(plots), encoding="utf-8")


def lineage(data: Path) -> dict[str, Any] | None:
    """Return what x.meta.json says about how the data was made, if it lies beside it."""
    meta = data.with_suffix(".meta.json")
    if not meta.exists():
        return None
    fingerprint: dict[str, Any] = json.loads(meta.read_text())["result"]["fingerprint"]
    return fingerprint


def write_card(folder: RunFolder, data: str, model: str, report: dict[str, Any]) -> None:
    """Write the model's README."""
    result = report["result"]
    lines = [
        f"# {folder.path.name}",
        "",
        f"Made by `datagen {result['command']}` from `{model}` on `{Path(data).name}`: {result['rows']['train']} "
        f"sequences, {result['rows']['held_out']} held out, {result['steps']} steps.",
        "",
        *_origin(lineage(Path(data))),
        *_measured(result["start"], result["end"]),
        *(line for paragraph in result.get("about", []) for line in (paragraph, "")),
        *_accounted(result["rows"]),
        "Checks before the first step:",
        "",
        *(f"- {name}: {finding}" for name, finding in result["checks"].items()),
        "",
        "Curves: [run/curves.svg](run/curves.svg). Every option: [run/config.json](run/config.json).",
        "",
    ]
    (folder.path / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _measured(start: dict[str, float], end: dict[str, float]) -> list[str]:
    if not end:
        return ["Nothing was held out to measure on.", ""]
    told = {name: value for name, value in end.items() if not name.startswith(NOT_TOLD)}
    rows = [f"| {n.removeprefix('eval_')} | {_number(start.get(n))} | {_number(value)} |" for n, value in told.items()]
    return ["| measured on held-out rows | before | after |", "|---|---|---|", *rows, ""]


def _accounted(rows: dict[str, Any]) -> list[str]:
    dropped = sum(rows["dropped"].values())
    return [f"Rows: {rows['read']} read, {rows['unreadable']} unreadable, {dropped} dropped, {rows['cut']} cut.", ""]


def _origin(origin: dict[str, Any] | None) -> list[str]:
    if origin is None:
        return ["Where the data comes from is not recorded beside it.", ""]
    roles = {name: value for name, value in origin.items() if isinstance(value, list) and name != "params"}
    made = ", ".join(f"{role} {' and '.join(map(str, names))}" for role, names in roles.items())
    simulated = any(str(name).startswith("sim") for names in roles.values() for name in names)
    note = " **`sim` is a procedural teacher, not a language model.**" if simulated else ""
    return [f"The data was made by `datagen {origin['command']}` ({made}).{note}", ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
