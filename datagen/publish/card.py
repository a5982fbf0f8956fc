"""The card of a data set: what it is, how it was made, from what, at what cost, and what is not known of it.

Everything in it is in the files: x.meta.json of each step, and the rows. Texts of models are escaped, or stand in
blocks of code.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

import datagen
from datagen.commands.report import sentence_of
from datagen.llm.prices import dollars
from datagen.publish.chain import Step
from datagen.publish.data import Config, size_category
from datagen.publish.replay import Replay, known_commands
from datagen.publish.terms import terms_of
from datagen.records.makers import is_sim
from datagen.records.record import Row
from datagen.report.markdown import code, fenced, page_table, plain, table
from datagen.report.outputs import SIM, Output, notes
from datagen.report.rows import texts_of
from datagen.report.similarity import NEAR, measure
from datagen.report.tables import method_tables, outcomes, spending_tables
from datagen.text import count_of

MARK = "<!-- made by datagen pack -->"
"""Stands in every card, so that a folder of ours is known."""
SAMPLES, SAMPLE_TEXT = 2, 700
"""Rows of each file that the card shows, and characters of each of their texts."""
COMMON_LANGUAGE = 0.05
"""Share of the sampled rows that a language of the data set has."""
CHECKED_BY = ("filter",)
"""Commands that look for questions of benchmarks in rows, if --against names any."""


@dataclass(frozen=True)
class Given:
    """What only the publisher knows."""

    title: str
    license: str | None
    seeds_license: str | None
    languages: Sequence[str]
    """Codes; where there are none they are found in a sample of the rows."""


@dataclass(frozen=True)
class Packed:
    """What a card is about."""

    given: Given
    steps: Sequence[Step]
    """From the first to the last."""
    outputs: Sequence[Output]
    """The files whose rows are in the data set."""
    duplicates: Mapping[str, int]
    """Name of a file to the rows whose prompt an earlier row has, too."""
    languages: Counter[str]
    """Rows of the sample by language."""
    configs: Sequence[Config]
    replay: Replay | None


def card(packed: Packed) -> str:
    """Return the text of README.md."""
    sections = [
        introduction(packed),
        section("How it was made", steps_text(packed)),
        section("Models and their terms", models_text(packed.steps)),
        section("Seeds", seeds_text(packed)),
        section("Candidates, and what was dropped", funnels_text(packed.steps)),
        section("Judges and other measurements", judges_text(packed.steps)),
        section("Cost", cost_text(packed.steps)),
        section("The rows", rows_text(packed)),
        section("Sample rows", samples_text(packed.outputs)),
        section("Limits", limits_text(packed)),
        section("Make it again", commands_text(packed)),
        section("Prompt templates", templates_text(packed.steps)),
    ]
    return f"{head(packed)}\n{MARK}\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def section(title: str, text: str) -> str:
    """Return a section; nothing for an empty one."""
    return f"## {title}\n\n{text}" if text else ""


def head(packed: Packed) -> str:
    """Return what the hub reads, as YAML between two lines of hyphens."""
    configs: list[dict[str, Any]] = [
        {"config_name": config.name, "data_files": [{"split": "train", "path": config.file}]}
        for config in packed.configs
    ]
    configs[0]["default"] = True
    fields: dict[str, Any] = {
        "license": packed.given.license,
        "language": languages_of(packed) or None,
        "size_categories": [size_category(sum(config.rows for config in packed.configs))],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "datagen", *(["preference"] if is_preference(packed) else [])],
        "source_datasets": hub_sources(packed.steps) or None,
        "configs": configs,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---"


def is_preference(packed: Packed) -> bool:
    return any(config.kind == "preferences" for config in packed.configs)


def languages_of(packed: Packed) -> list[str]:
    """Return the languages of the rows: as given, or those that are common in the sample."""
    counts = packed.languages
    return list(packed.given.languages) or [
        name for name, count in counts.most_common() if count >= COMMON_LANGUAGE * counts.total()
    ]


def hub_sources(steps: Iterable[Step]) -> list[str]:
    """Return the data sets of the hub that were read, by their repositories."""
    from datagen.records.hub import NAME

    matches = (NAME.fullmatch(step.given_input) for step in steps)
    return list(dict.fromkeys(match["name"] for match in matches if match))


def introduction(packed: Packed) -> str:
    """Say what it is."""
    commands = " and ".join(dict.fromkeys(code(f"datagen {step.command}") for step in packed.steps))
    simulated = any(is_sim(model) for step in packed.steps for model in step.models)
    lines = [
        f"# {plain(packed.given.title)}",
        f"Synthetic data, made by {commands} (datagen-train {datagen.__version__}).",
        *([f"**{SIM}**"] if simulated else []),
        *([] if packed.given.license else ["**No license was given for this data set.**"]),
        table(
            ["configuration", "rows", "what they are", "columns"],
            [[one.name, f"{one.rows:,}", one.kind, ", ".join(one.columns)] for one in packed.configs],
        ),
    ]
    return "\n\n".join(lines)


def steps_text(packed: Packed) -> str:
    """Say what was made from what."""
    lines = [
        [step.path.name, f"datagen {step.command}", step.input_name or "nothing",
         f"{step.result['funnel']['asked']:,}", f"{step.result['funnel']['kept']:,}"]
        for step in packed.steps
    ]  # fmt: skip
    first = packed.steps[0]
    ends = first.source is None and first.input_name and not hub_sources([first])
    gone = f"\n\n{code(first.input_name)} is not there any more, so nothing is known of what was before it."
    return table(["file", "command", "made from", "candidates", "kept"], lines) + (gone if ends else "")


def models_text(steps: Iterable[Step]) -> str:
    """Say which models wrote and judged, and what is known of the terms of their answers."""
    answers: dict[str, dict[str, Any]] = {}
    for step in steps:
        for model, entry in step.models.items():
            total = answers.setdefault(model, {"roles": [], "answers": 0})
            total["roles"] = list(dict.fromkeys([*total["roles"], *entry["roles"]]))
            total["answers"] += entry["answers"]
    if not answers:
        return "No model was asked in these steps. Models named in `meta` of the rows made the input."
    lines = [
        [model, ", ".join(entry["roles"]), f"{entry['answers']:,}", terms_of(model)]
        for model, entry in answers.items()
    ]  # fmt: skip
    return table(["model", "roles", "answers", "known terms of its answers"], lines)


def seeds_text(packed: Packed) -> str:
    """Say what the first steps read."""
    own = {step.path.resolve() for step in packed.steps}
    lines = [
        [step.input_name, step.fingerprint.get("format") or "", str(step.fingerprint.get("input") or "")[:16]]
        for step in packed.steps
        if step.input_name and (step.source is None or step.source.resolve() not in own)
    ]
    if not lines:
        return "The first step reads nothing."
    licensed = plain(packed.given.seeds_license) if packed.given.seeds_license else "not known"
    listed = table(["file", "format", "SHA-256 begins"], [list(line) for line in dict.fromkeys(map(tuple, lines))])
    return f"{listed}\n\nLicense of the seeds: {licensed}."


def funnels_text(steps: Iterable[Step]) -> str:
    """Say what became of the candidates of each step."""
    texts = []
    for step in steps:
        funnel, command = step.result["funnel"], step.command
        lines = [
            [one.name, one.status, f"{one.number:,}", f"{one.share:.1f} %", one.sentence]
            for one in outcomes(funnel, lambda reason, name=command: sentence_of(name, reason))  # type: ignore[misc]
        ]
        unreadable = funnel["unreadable"]
        more = f"\n\n{count_of(unreadable, 'line')} of the input could not be used." if unreadable else ""
        texts.append(f"**{plain(step.path.name)}**\n\n{table(['', '', 'number', 'share', ''], lines)}{more}")
    return "\n\n".join(texts)


def judges_text(steps: Iterable[Step]) -> str:
    """Show what the methods have counted: agreement with people, unread verdicts, position bias and others."""
    texts = []
    for step in steps:
        unread = [
            f"{plain(name)}: {counts['missing']:,} of {counts['asked']:,}."
            for name, counts in step.result["funnel"].get("unobtained", {}).items()
        ]
        tables = [page_table(one) for one in method_tables(step.result.get("table") or {})]
        if unread or tables:
            texts.append("\n\n".join([f"### {plain(step.path.name)}", *unread, *tables]))
    return "\n\n".join(texts)


def cost_text(steps: Iterable[Step]) -> str:
    """Say what the answers cost."""
    paid_steps = [step for step in steps if step.result.get("usage", {}).get("calls")]
    if not paid_steps:
        return "No model was asked, so nothing was paid."
    lines = []
    for step in paid_steps:
        usage = step.result["usage"]
        price = "unknown" if usage.get("cost") is None else dollars(usage["cost"])
        simulated = all(map(is_sim, step.models))
        cells = (f"{usage[name]:,}" for name in ("calls", "prompt_tokens", "completion_tokens"))
        lines.append([step.path.name, *cells, "simulated" if simulated else price])
    parts = [f"**{plain(step.path.name)}**\n\n{page_table(one)}" for step in paid_steps
             for one in spending_tables(step.result.get("spending", []))[:1]]  # fmt: skip
    return "\n\n".join([table(["file", "answers", "prompt tokens", "completion tokens", "cost"], lines), *parts])


def rows_text(packed: Packed) -> str:
    """Say how long the rows are, and how alike."""
    lines = []
    for output in packed.outputs:
        for name, counts in output.figures.words.items():
            values = np.repeat(sorted(counts), [counts[value] for value in sorted(counts)])
            cells = (f"{np.quantile(values, share, method='higher'):,}" for share in (0.5, 0.9, 1.0))
            lines.append([output.path.name, name, f"{len(values):,}", *cells])
    lengths = table(["file", "words of", "texts", "median", "90 % at most", "longest"], lines)
    return "\n\n".join([lengths, *(likeness(output, packed.duplicates) for output in packed.outputs)])


def likeness(output: Output, duplicates: Mapping[str, int]) -> str:
    """Say how many prompts of a file are the same, and how many are alike."""
    similarity = measure(output.figures.sample.rows, {})
    name, number = plain(output.path.name), duplicates[output.path.name]
    text = f"{name}: {count_of(number, 'row')} with the prompt of an earlier row."
    if len(similarity.nearest):
        near = 100 * float(np.mean(similarity.nearest > NEAR))
        text += (
            f" {near:.0f} % of a sample of {count_of(similarity.size, 'row')} have a prompt whose ROUGE-L with one of "
            f"another seed is above {NEAR}."
        )
    return text


def samples_text(outputs: Iterable[Output]) -> str:
    """Show some rows, as text."""
    blocks = []
    for output in outputs:
        for row in output.figures.sample.rows[:SAMPLES]:
            blocks.append(f"{plain(output.path.name)}, row {code(row.get('id', ''))}:")
            blocks += [f"{name}:\n\n{fenced(text, SAMPLE_TEXT)}" for name, text in texts_of(row)[:4]]
    return "\n\n".join(blocks)


def limits_text(packed: Packed) -> str:
    """Say what is not known, and what went wrong."""
    lines = [line for output in packed.outputs for line in notes(output) if line != SIM]
    lines += contamination_lines(packed)
    lines.append(
        "The rows were written by models: they may be wrong, biased, or alike in ways that nothing here measures."
    )
    if not any("agreement" in one.title.lower() for step in packed.steps for one in tables_of(step)):
        lines.append("No judgement was compared with that of people in these steps.")
    return "\n".join(f"- {plain(line)}" for line in dict.fromkeys(lines))


def tables_of(step: Step) -> list[Any]:
    return method_tables(step.result.get("table") or {})


def contamination_lines(packed: Packed) -> list[str]:
    """Say which benchmarks the rows were compared with."""
    checks = (step.fingerprint.get("against") or () for step in packed.steps if step.command in CHECKED_BY)
    names = sorted({str(name) for names in checks for name in names})
    lines = [f"Rows with a question of {', '.join(names)} were dropped."] if names else []
    for output in packed.outputs:
        for name, rows, questions, size, verdict in output.hits.table().lines if output.hits else ():
            lines.append(
                f"{output.path.name} and {name}: {rows} rows hold {questions} of {size} questions ({verdict})."
            )
    return lines or ["The rows were not compared with the questions of any benchmark."]


def commands_text(packed: Packed) -> str:
    """Say how to make the rows again, from the recorded answers or from new ones."""
    versions = f"datagen-train {datagen.__version__}, Python {platform.python_version()}"
    if packed.replay is None:
        commands = [command.line for command in known_commands(packed.steps)] or [
            f"datagen {step.command}: {step.input_name or 'no input'} to {step.path.name}" for step in packed.steps
        ]
        return (
            f"{fenced(chr(10).join(commands), 100_000)}\n\nAddresses of servers are left out. The inputs and the "
            f"recorded answers are not part of the data set. Packed with {versions}."
        )
    lines = "\n".join(["cd replay", *(command.line for command in packed.replay.commands)])
    answers = count_of(packed.replay.answers, "answer")
    return (
        f"{fenced(lines, 100_000, 'console')}\n\nThe folder `replay` holds the inputs and the {answers} that these "
        "commands use, as a journal: they send no request and make the same bytes again, whatever is at the address. "
        f"Other thresholds see the recorded answers, too. Packed with {versions}, which ran them."
    )


def templates_text(steps: Iterable[Step]) -> str:
    """List the digests of the prompt templates that were used."""
    digests: dict[tuple[str, str], None] = {}
    for step in steps:
        used = {str(part.get("template")) for part in step.result.get("spending", [])}
        for name, value in step.fingerprint.items():
            template = name.removeprefix("prompt ")
            if name.startswith("prompt ") and template in used:
                digests[template, str(value)] = None
    return table(["template", "digest"], [list(pair) for pair in digests]) if digests else ""


def language_counts(rows: Iterable[Row]) -> Counter[str]:
    """Count the languages of rows, as far as they are certain."""
    from datagen.verify.languages import detect

    texts = (" ".join(text for _, text in texts_of(row)[:2]) for row in rows)
    return Counter(language for text in texts if (language := detect(text)))
