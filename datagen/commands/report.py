"""`datagen report FILES...`: one page of HTML about outputs, training runs and evaluations (report/)."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datagen.commands.table import COMMANDS, load_methods
from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.engine.output import read_meta
from datagen.engine.reasons import COMMON_REASONS, reason_sentence
from datagen.errors import InputError
from datagen.installation import shown
from datagen.llm.prices import dollars
from datagen.printing import printable
from datagen.records.files import check_folder, nearest, replace_file
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.record import Row
from datagen.records.usage import USAGE_COUNTS
from datagen.report.cards import fitting, rejected_groups, sample_row
from datagen.report.evaluations import evaluation_table, is_evaluation
from datagen.report.lineage import Ancestry
from datagen.report.outputs import BenchmarkHits, Output, OutputSection, output_section
from datagen.report.page import Overview, is_page, render
from datagen.report.rows import read_figures, texts_of
from datagen.report.similarity import measure, seed_of
from datagen.report.tables import PageTable
from datagen.report.training import TrainingSection, is_run, training_section
from datagen.select.contamination import BenchmarkIndex, read_benchmarks
from datagen.text import count_of

ARGUMENTS = (
    (
        "files",
        "Outputs, folders of training runs, and what `datagen train eval` has printed. [all in the working folder]",
        True,
        True,
    ),
)
MOST_FILES = 60
"""Sections of a page."""
MOST_BYTES = 800_000
"""Bytes of the sample rows and of the rejected rows of a page, over all of its files."""
TRIES = 4
"""Rows that are looked at for each sample row: some may be too long."""


class Sources(NamedTuple):
    """What a page is about."""

    files: list[Path]
    """Files of rows."""
    runs: list[Path]
    """Folders of training runs."""
    evaluations: list[Path]
    """Files of JSON."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen report`."""

    output: str = option("report.html", "The page, or - for standard output.", short="-o")
    samples: int = option(4, "Sample rows of each file; fewer where they are long.", least=0, most=50)
    against: list[str] = option(
        [], "Benchmark file whose questions are looked for in the rows; FILE#FIELD,FIELD names the fields. Repeatable."
    )
    quiet: bool = option(False, "Print only warnings and errors.", short="-q")


def run(files: list[str] | None, options: Options) -> int:
    """Write the page; return the exit code."""
    paths, folders, evaluations = sources = sort_arguments(files or outputs_here())
    page_path = None if options.output == "-" else Path(options.output)
    if page_path:
        check_target(page_path, [path for kind in sources for path in kind], options)
    outputs = in_flow_order([read_output(path, options, partial(say, options)) for path in paths])
    anchors = {output.path: f"file-{place}" for place, output in enumerate(outputs, 1)}
    ancestry = Ancestry(
        {output.path: output.figures.index for output in outputs},
        {output.path: output.meta for output in outputs if output.meta},
    )
    ancestry.look_for([row for output in outputs for row in output.figures.sample.rows])
    sections = [make_section(output, outputs, anchors, ancestry, options.samples) for output in outputs]
    runs = [training_section(folder, f"run-{place}") for place, folder in enumerate(folders, 1)]
    top = overview(outputs, sections, runs, evaluation_table(evaluations))
    page = render(top, sections, runs).encode(errors="backslashreplace")
    if page_path is None:
        sys.stdout.buffer.write(page)
        return 0
    replace_file(page_path, page)
    counts = f"{count_of(len(sections), 'file')}, {count_of(len(runs), 'training run')}, {len(page) / 1024:,.0f} kB"
    say(options, f"Report: {page_path}   {counts}")
    return 0


def say(options: Options, text: str) -> None:
    if not options.quiet:
        print(printable(text), file=sys.stderr)


def outputs_here() -> list[str]:
    """Return the outputs of the working folder in the order in which they were begun, its runs and evaluations.

    Raises:
        InputError: There are none.
    """
    metas = {path: read_meta(path) for path in sorted(Path().glob("*.meta.json"))}
    outputs = [
        (str(meta["run"].get("began") or ""), rows)
        for path, meta in metas.items()
        if meta and (rows := Path(path.name.removesuffix(".meta.json") + ".jsonl")).is_file()
    ]
    runs = [str(folder) for folder in sorted(Path().iterdir()) if folder.is_dir() and is_run(folder)]
    names = [str(path) for _, path in sorted(outputs)]
    if not names and not runs:
        raise InputError("no output and no training run in this folder; name some: datagen report FILES...")
    return names + runs + [str(path) for path in sorted(Path().glob("*.json")) if is_evaluation(path)]


def sort_arguments(names: Sequence[str]) -> Sources:
    """Return what some names are; a folder of outputs stands for these.

    Raises:
        InputError: A name is neither, or there are too many.
    """
    files, folders, evaluations = list[Path](), list[Path](), list[Path]()
    for name in dict.fromkeys(names):
        path = Path(name)
        if path.is_dir() and is_run(path):
            folders.append(path)
        elif path.is_dir():
            inside = [file for file in sorted(path.glob("*.jsonl")) if read_meta(file.with_suffix(".meta.json"))]
            runs = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and is_run(folder)]
            if not inside and not runs:
                raise InputError(f"{name}: a folder with no output of datagen and no training run")
            files, folders = files + inside, folders + runs
            evaluations += [file for file in sorted(path.glob("*.json")) if is_evaluation(file)]
        elif path.name.endswith((".rejected.jsonl", ".meta.json")):
            raise InputError(f"{name}: belongs to an output; name the file of rows, and it is read, too")
        elif not path.exists():
            raise InputError(f"{name}: no such file or folder{nearest(path, Path.exists)}")
        elif is_evaluation(path):
            evaluations.append(path)
        else:
            files.append(path)
    if len(files) + len(folders) > MOST_FILES:
        raise InputError(f"{len(files) + len(folders)} files and runs, and a page holds {MOST_FILES}; name fewer")
    return Sources(*(list(dict.fromkeys(kind)) for kind in (files, folders, evaluations)))


def check_target(page: Path, read: Sequence[Path], options: Options) -> None:
    """Raise InputError if the page would replace what is read, or what somebody else made."""
    check_folder(page)
    refuse_overlap([page], [*read, *paths_in([options.against])])
    if page.exists() and not (page.is_file() and is_page(page)):
        raise InputError(f"{page}: exists and is no report of datagen; choose another -o, or move it away")


def read_output(path: Path, options: Options, say: Callable[[str], None]) -> Output:
    """Read a file of rows once.

    Raises:
        InputError: It holds no row, or x.meta.json was changed.
    """
    hits = None
    if options.against:
        benchmarks = read_benchmarks(options.against)
        hits = BenchmarkHits(BenchmarkIndex(benchmarks), {one.name: len(one.texts) for one in benchmarks})

    def look(row: Row) -> None:
        if hits:
            hits.add([text for _, text in texts_of(row)])

    meta_path = path.with_suffix(".meta.json")
    meta, figures = read_meta(meta_path), read_figures(path, look)
    if meta and not is_whole(meta["result"]):
        raise InputError(f"{meta_path}: not as datagen wrote it; run its command again with --overwrite, or remove it")
    if not figures.rows and meta is None:
        keys = "prompt, response, responses, chosen, rejected, text"
        raise InputError(f"{path}: no rows of JSON lines with any of {keys}; other formats: datagen convert")
    say(f"{path}: {count_of(figures.rows, 'row')}")
    return Output(path, meta, figures, hits)


def is_whole(result: Row) -> bool:
    """Say whether the account of a run, in x.meta.json, has the numbers that the page shows."""
    usage, spending, table = (result.get(name) for name in ("usage", "spending", "table"))
    if not isinstance(usage, dict) or not isinstance(spending, list) or not isinstance(table, dict):
        return False
    parts = [usage, *spending]
    return all(
        isinstance(part, dict) and all(isinstance(part.get(name), int) for name in USAGE_COUNTS) for part in parts
    ) and all("role" in part and "model" in part for part in spending)


def in_flow_order(outputs: list[Output]) -> list[Output]:
    """Return outputs so that what was made from one stands behind it, before the next that was made from none."""
    ordered: list[Output] = []

    def place(output: Output) -> None:
        if all(one is not output for one in ordered):
            ordered.append(output)
            for other in outputs:
                if other.input_digest == output.figures.digest:
                    place(other)

    digests = {output.figures.digest for output in outputs}
    for output in sorted(outputs, key=lambda one: one.input_digest in digests):
        place(output)
    return ordered


def make_section(
    output: Output, outputs: list[Output], anchors: dict[Path, str], ancestry: Ancestry, number: int
) -> OutputSection:
    """Make the section of an output."""
    rows, sentence = output.figures.sample.rows, partial(sentence_of, output.command)
    seeds = {name: step.row for row in rows if (name := seed_of(row)) and (step := ancestry.row(name))}
    rejected = output.path.with_suffix(".rejected.jsonl")
    budget = MOST_BYTES // (2 * len(outputs))
    groups = rejected_groups(rejected, output.result["funnel"], sentence, budget) if output.meta else []
    judge = f"datagen judge {shown(output.path)} --by difficulty --judge MODEL"
    samples = fitting((sample_row(row, ancestry) for row in rows[: TRIES * number]), number, budget)
    return output_section(output, outputs, anchors, measure(rows, seeds), samples, groups, sentence, judge)


def sentence_of(command: str, reason: str) -> str | None:
    """Return what a reason means in the rejected rows of a command."""
    name, _, variant = command.partition(" ")
    methods: dict[str, type[Method]] = load_methods(name) if name in COMMANDS and COMMANDS[name].methods else {}
    method = methods.get(variant)
    return reason_sentence(method, reason) if method else COMMON_REASONS.get(reason)


def overview(
    outputs: Sequence[Output],
    sections: Sequence[OutputSection],
    runs: Sequence[TrainingSection],
    evaluations: PageTable,
) -> Overview:
    """Return what stands at the top of the page."""
    usages = [output.result["usage"] for output in outputs if output.meta]
    costs = [usage["cost"] for usage in usages]
    tiles = [("files", f"{len(outputs):,}"), ("rows", f"{sum(output.figures.rows for output in outputs):,}")]
    tiles += [("training runs", f"{len(runs):,}")] if runs else []
    if any(usage["calls"] for usage in usages):
        tokens = sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)
        known = dollars(sum(cost for cost in costs if cost is not None))
        tiles += [("answers", f"{sum(usage['calls'] for usage in usages):,}"), ("tokens", f"{tokens:,}")]
        tiles += [("cost", f"{known} and unknown prices" if None in costs else known)]
    lines = [overview_line(*pair) for pair in zip(outputs, sections, strict=True)]
    names = {output.path.name: section.anchor for output, section in zip(outputs, sections, strict=True)}
    for one in runs:
        data = Path(one.data).name
        cells = [(one.name, one.anchor), (f"datagen {one.command}", ""), (data, names.get(data, ""))]
        lines.append([*cells, *[("", "")] * 4])
    folder = Path().resolve().name
    return Overview(folder or "Report", tiles, lines, evaluations, [])


def overview_line(output: Output, section: OutputSection) -> list[tuple[str, str]]:
    """Return the line of an output in the overview."""
    cells = [(section.name, section.anchor), (section.command, ""), (section.origin, section.origin_anchor)]
    if not output.meta:
        return [*cells, ("", ""), (f"{output.figures.rows:,}", ""), ("", ""), ("", "")]
    funnel, usage = output.result["funnel"], output.result["usage"]
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    cost = "unknown" if usage["cost"] is None else dollars(usage["cost"]) if usage["calls"] else ""
    return [
        *cells,
        (f"{funnel['asked']:,}", ""),
        (f"{funnel['kept']:,}", ""),
        (f"{tokens:,}" if tokens else "", ""),
        (cost, ""),
    ]
