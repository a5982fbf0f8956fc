"""`datagen pack OUTPUT... -o FOLDER`: outputs as a data set for the hub, with a card (card.py)."""

import shutil
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import numpy as np

from datagen.commands.report import is_whole
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.installation import shown
from datagen.libraries import check_library
from datagen.printing import printable
from datagen.publish.card import MARK, Given, Packed, card, language_counts
from datagen.publish.chain import Step, chain_of
from datagen.publish.data import Config, config_name, write_rejected, write_rows
from datagen.publish.replay import Replay, write_replay
from datagen.publish.secrets import environment_secrets, private_hosts, refuse_in_folder, refuse_secret
from datagen.records.files import check_folder, nearest
from datagen.records.places import refuse_overlap
from datagen.records.record import Row
from datagen.records.seen import short_digest
from datagen.report.outputs import BenchmarkHits, Output
from datagen.report.rows import read_figures, texts_of
from datagen.select.contamination import BenchmarkIndex, read_benchmarks
from datagen.text import count_of, exact_key

ARGUMENTS = (("outputs", "Outputs of datagen (.jsonl).", True),)
CARD = "README.md"


@dataclass(frozen=True)
class Options:
    """Options of `datagen pack`."""

    output: Path = option(Path("dataset"), "The folder of the data set.", short="-o")
    title: str | None = option(None, "Title of the card. [the name of the folder]")
    license: str | None = option(None, "License of the data set, as the hub names it, such as cc-by-4.0.")
    seeds_license: str | None = option(None, "License of the seeds, in words.")
    language: list[str] = option([], "Language of the rows, such as en. Repeatable. [found in a sample]")
    rejected: bool = option(False, "Add the rejected rows, as configurations of their own.")
    journal: bool = option(False, "Add inputs and recorded answers, so that others can run the commands again.")
    against: list[str] = option(
        [], "Benchmark file whose questions are looked for in the rows; FILE#FIELD,FIELD names the fields. Repeatable."
    )
    overwrite: bool = option(False, "Replace a folder that pack has made.")
    quiet: bool = option(False, "Print only warnings and errors.", short="-q")


def run(outputs: list[str], options: Options) -> int:
    """Write the folder; return the exit code."""
    check_library("pyarrow", "to write Parquet", "data")
    paths = [check_output(name) for name in dict.fromkeys(outputs)]
    check_target(options.output, paths, overwrite=options.overwrite)
    configs = pack(paths, options)
    if not options.quiet:
        rows = sum(config.rows for config in configs)
        folder = shown(options.output)
        print(
            printable(f"Data set: {options.output}   {count_of(rows, 'row')}, card: {options.output / CARD}"),
            file=sys.stderr,
        )
        print(printable(f"Next: datagen push {folder} OWNER/NAME --dry-run"), file=sys.stderr)
    return 0


def check_output(name: str) -> Path:
    """Return the path of an output; raise InputError for something else."""
    path = Path(name)
    if path.name.endswith((".rejected.jsonl", ".meta.json")):
        raise InputError(f"{name}: belongs to an output; name the file of rows (rejected rows: --rejected)")
    if not path.is_file():
        raise InputError(f"{name}: no such file{nearest(path, Path.is_file)}")
    return path


def check_target(folder: Path, paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise InputError if the folder cannot be made, or holds something else than a data set of ours."""
    check_folder(folder)
    refuse_overlap([folder], paths)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not is_packed(folder):
        raise InputError(f"{folder}: exists and was not made by datagen pack; choose another -o")
    if not overwrite:
        raise InputError(f"{folder}: exists; choose another -o, or add --overwrite")


def is_packed(folder: Path) -> bool:
    """Say whether `pack` has made a folder."""
    try:
        return MARK in (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def pack(paths: Sequence[Path], options: Options) -> list[Config]:
    """Write the data set under another name, then put it in its place."""
    part = options.output.with_name(f".{token_hex(8)}.part")
    part.mkdir()
    try:
        configs = fill(paths, part, options)
        if options.output.exists():
            shutil.rmtree(options.output)
        part.rename(options.output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return configs


def fill(paths: Sequence[Path], folder: Path, options: Options) -> list[Config]:
    """Write the files of a data set; return its configurations."""
    steps = chain_of(paths)
    for step in steps:
        if not is_whole(step.result):
            raise InputError(f"{step.path.with_suffix('.meta.json')}: not as datagen wrote it; run its command again")
    (folder / "data").mkdir()
    configs = write_configs(paths, folder, rejected=options.rejected)
    replay = write_replay(steps, folder / "replay") if options.journal else None
    text = card(describe(paths, steps, configs, replay, options))
    secrets = [*environment_secrets(), *private_hosts(steps)]
    refuse_secret(f"{options.output / CARD}: the card", text, secrets)
    if replay:
        refuse_in_folder(folder / "replay", secrets)
    (folder / CARD).write_text(text, encoding="utf-8", errors="backslashreplace")
    return configs


def write_configs(paths: Sequence[Path], folder: Path, *, rejected: bool) -> list[Config]:
    """Write the rows of each output, and its rejected rows."""
    configs: list[Config] = []
    for path in paths:
        name = config_name(path)
        if any(config.name == name for config in configs):
            raise InputError(f"{path}: two configurations would be called {name}; give one of the outputs another name")
        configs.append(write_rows(path, name, folder))
    others = (
        write_rejected(path.with_suffix(".rejected.jsonl"), f"{config_name(path)}_rejected", folder)
        for path in (paths if rejected else ())
    )
    return [*configs, *filter(None, others)]


def describe(
    paths: Sequence[Path], steps: Sequence[Step], configs: Sequence[Config], replay: Replay | None, options: Options
) -> Packed:
    """Read the outputs once more, for their figures."""
    metas = {step.path.resolve(): step.meta for step in steps}
    outputs, duplicates = [], {}
    for path in paths:
        keys = array("Q")
        hits = benchmark_hits(options.against)

        def look(row: Row, keys: "array[int]" = keys, hits: BenchmarkHits | None = hits) -> None:
            texts = [text for _, text in texts_of(row)]
            keys.append(short_digest(exact_key(texts[0])))
            if hits:
                hits.add(texts)

        outputs.append(Output(path, metas[path.resolve()], read_figures(path, look), hits))
        duplicates[path.name] = len(keys) - len(np.unique(np.frombuffer(keys, np.uint64)))
    languages = (
        Counter[str]()
        if options.language
        else language_counts(row for output in outputs for row in output.figures.sample.rows)
    )
    title = options.title or options.output.resolve().name
    given = Given(title, options.license, options.seeds_license, options.language)
    return Packed(given, steps, outputs, duplicates, languages, configs, replay)


def benchmark_hits(against: list[str]) -> BenchmarkHits | None:
    """Return what counts the questions of benchmarks."""
    if not against:
        return None
    benchmarks = read_benchmarks(against)
    return BenchmarkHits(BenchmarkIndex(benchmarks), {one.name: len(one.texts) for one in benchmarks})
