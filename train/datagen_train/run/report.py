"""What a run leaves for people: its curves, and a model card that says what the model was trained on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datagen.engine.output import read_meta
from datagen.records.makers import is_sim
from datagen.report.markdown import code, plain
from datagen.report.plot import page, plot
from datagen.report.training import PANELS
from datagen_train.data.sources import Source
from datagen_train.run.card_head import head, shown_base
from datagen_train.run.folder import RunFolder
from datagen_train.run.manifest import CARD

BETTER = {
    "loss": -1, "exact_match": 1, "rouge_l": 1, "also_exact_match": 1, "also_rouge_l": 1, "accuracy": 1,
    "macro_f1": 1, "reward": 1,
}  # fmt: skip
"""Metrics with a known better direction: 1 if more is better, -1 if less is."""
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
NOT_ON_CARD = ("eval_entropy", "eval_logits")
"""Beginnings of the names of metrics that say nothing about how good a model is."""


def circumstances(trainer: Any, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return what may differ between two runs of one command: times, devices, versions of the libraries."""
    return {
        **{name: round(value, 2) for name, value in seconds.items()},
        "device": str(trainer.args.device),
        "processes": trainer.args.world_size,
        "sharded": trainer.is_sharded,
        "local_parameters": trainer.count_local(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def write_curves(folder: RunFolder) -> None:
    """Draw the metrics of a run over its steps."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in folder.read_metrics():
        for name, value in line.items():
            curves[name].append((line["step"], value))
    plots = [plot(title, {name: curves[name] for name in names if name in curves}) for title, names in PANELS.items()]
    folder.curves.write_text(page(plots), encoding="utf-8")


def write_card(folder: RunFolder, sources: Sequence[Source], model: str, report: dict[str, Any]) -> None:
    """Write the model card, README.md beside the model that was saved."""
    result = report["result"]
    rows = result["rows"]
    trainer = result["command"].removeprefix("train ")
    files = ", ".join(code(source.label(Path(source.name).name)) for source in sources)
    lines = [
        head(trainer, [source.name for source in sources], model, folder.saving),
        f"# {plain(folder.path.name)}",
        "",
        f"Made by `datagen {result['command']}` from {code(shown_base(model))} on {files}: "
        f"{rows['train']} sequences, {rows['held_out']} held out, {result['steps']} steps.",
        "",
        _origin(sources, rows["makers"]),
        "",
        *_metrics_table(result["start"], result["end"]),
        "",
        *([] if result["learned"] else [f"**{plain(result['outcome'])}**", ""]),
        *(line for paragraph in result.get("about", []) for line in (paragraph, "")),
        *(
            line
            for name, text in result.get("alarms", {}).items()
            for line in (f"**Alarm: {plain(f'{name}, {text}')}.**", "")
        ),
        f"Rows: {rows['read']} read, {rows['unreadable']} unreadable, {sum(rows['dropped'].values())} dropped, "
        f"{rows['cut']} cut.",
        "",
        "Checks before the first step:",
        "",
        *(f"- {name}: {plain(finding)}" for name, finding in result["checks"].items()),
        "",
        "Curves: [run/curves.svg](run/curves.svg). Every option: `run/config.json` in the folder of the run.",
        "",
    ]
    (folder.saving / CARD).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")


def _origin(sources: Sequence[Source], makers: Mapping[str, int]) -> str:
    """Say which commands made the data, as x.meta.json beside it records, and which models wrote and judged it."""
    metas = [read_meta(Path(source.name).with_suffix(".meta.json")) for source in sources]
    commands = [meta["result"]["fingerprint"].get("command") for meta in metas if meta]
    commands = [code(f"datagen {command}") for command in dict.fromkeys(commands) if command]
    origin = "No record beside the data says its origin."
    if commands:
        origin = f"The data was made by {' and '.join(commands)}."
    models = ", ".join(f"{plain(name)} ({number} rows)" for name, number in makers.items())
    is_simulated = any(map(is_sim, makers))
    note = " **`sim` is a procedural teacher, not a language model.**" if is_simulated else ""
    return f"{origin} {f'Written or judged by: {models}.' if models else 'The rows name no model.'}{note}"


def _metrics_table(start: dict[str, float], end: dict[str, float]) -> list[str]:
    if not end:
        return ["Nothing was held out to measure on."]
    lines = ["| measured on held-out rows | before | after |", "|---|---|---|"]
    for name, value in end.items():
        if not name.startswith(NOT_ON_CARD):
            before = f"{start[name]:.4g}" if name in start else ""
            lines.append(f"| {name.removeprefix('eval_')} | {before} | {value:.4g}{worse(name, start, value)} |")
    return lines


def worse(name: str, start: Mapping[str, float], end: float) -> str:
    """Return a remark if a metric with a known better direction got worse, else ""."""
    before, sign = start.get(name), BETTER.get(name.removeprefix("eval_"))
    return " (worse)" if sign and before is not None and sign * (end - before) < 0 else ""
