"""What a run leaves for people: its curves, and a card that says what the model was made of."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datagen_train.run.folder import RunFolder
from datagen_train.run.plot import page, plot

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
BETTER = {"loss": -1, "exact_match": 1, "rouge_l": 1, "accuracy": 1, "reward": 1}
"""Metrics of which it is plain whether more or less of them is better."""
NOT_TOLD = ("eval_entropy", "eval_logits")
"""Metrics that say nothing about how good a model is."""


MAKERS = ("model", "models", "evolver", "asker", "backward", "judge", "judges", "responses")
"""Where `meta` says who wrote and who judged a row."""


def makers(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the models that a row names."""
    for name in MAKERS:
        told = meta.get(name)
        for each in told if isinstance(told, list) else [told]:
            if isinstance(each, str):
                yield each
            elif isinstance(each, dict):
                yield from makers(each)


def write_curves(folder: RunFolder) -> None:
    """Draw the metrics of a run over its steps."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in folder.read_metrics():
        for name, value in line.items():
            curves[name].append((line["step"], value))
    plots = [plot(title, {name: curves[name] for name in names if name in curves}) for title, names in PANELS.items()]
    folder.curves.write_text(page(plots), encoding="utf-8")


def made_by(data: Path) -> str | None:
    """Return the command that made the data, if x.meta.json beside it says so."""
    meta = data.with_suffix(".meta.json")
    return str(json.loads(meta.read_text())["result"]["fingerprint"]["command"]) if meta.exists() else None


def write_card(folder: RunFolder, data: str, model: str, report: dict[str, Any]) -> None:
    """Write the model's README."""
    result = report["result"]
    lines = [
        f"# {folder.path.name}",
        "",
        f"Example by `datagen {result['command']}` from `{model}` on `{Path(data).name}`: {result['rows']['train']} "
        f"sequences, {result['rows']['held_out']} held out, {result['steps']} steps.",
        "",
        *_origin(made_by(Path(data)), result["rows"]["makers"]),
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
    rows = [
        f"| {n.removeprefix('eval_')} | {_number(start.get(n))} | {_number(value)}{worse(n, start, value)} |"
        for n, value in told.items()
    ]
    return ["| measured on held-out rows | before | after |", "|---|---|---|", *rows, ""]


def worse(name: str, start: Mapping[str, float], end: float) -> str:
    """Return a remark where a metric of which it is known what is better got worse."""
    before, sign = start.get(name), BETTER.get(name.removeprefix("eval_"))
    return " (worse)" if sign and before is not None and sign * (end - before) < 0 else ""


def _accounted(rows: dict[str, Any]) -> list[str]:
    dropped = sum(rows["dropped"].values())
    return [f"Rows: {rows['read']} read, {rows['unreadable']} unreadable, {dropped} dropped, {rows['cut']} cut.", ""]


def _origin(command: str | None, makers: Mapping[str, int]) -> list[str]:
    """Say which command made the data, and which models wrote and judged it."""
    made = f"The data was made by `datagen {command}`." if command else "No record beside the data says what made it."
    told = ", ".join(f"{name} ({number} rows)" for name, number in makers.items())
    note = " **`sim` is a procedural teacher, not a language model.**" if any(map(is_sim, makers)) else ""
    return [f"{made} {f'Written or judged by: {told}.' if told else 'The rows name no model.'}{note}", ""]


def is_sim(model: str) -> bool:
    return re.match(r"sim[/:]", model) is not None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
