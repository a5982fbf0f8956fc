"""`datagen gather JOURNAL...`: the answers of shards come together in the journal of a folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.options import option
from datagen.llm.gather import Gathered, find_journal, gather
from datagen.printing import printable
from datagen.records.files import check_folder
from datagen.text import count_of

ARGUMENTS = (("journals", "Folders that shards ran in, or their journal files.", True),)
SHOW_EVERY = 100_000
"""Answers between two lines of progress."""


@dataclass(frozen=True)
class Options:
    """Options of `datagen gather`."""

    output: Path = option(Path(), "Folder of the output that the shards belong to.", short="-o")
    quiet: bool = option(False, "Print only warnings and errors.", short="-q")


def run(journals: list[str], options: Options) -> int:
    """Merge journals into that of the output's folder; return the exit code."""
    files = [find_journal(name) for name in journals]
    check_folder(options.output / "journal")

    def say(text: str) -> None:
        if not options.quiet:
            print(printable(text), file=sys.stderr)

    for file in files:
        gathered = gather(
            file,
            options.output,
            lambda number, name=file: say(f"{name}: {number:,} read") if number % SHOW_EVERY == 0 else None,  # type: ignore[misc]
        )
        say(f"{file}: {summary(gathered)}")
    say("Next: the command of the shards, without --shard: it finds these answers, and writes the rows")
    return 0


def summary(gathered: Gathered) -> str:
    """Say what became of the answers of a journal."""
    parts = [f"{count_of(gathered.new, 'new answer')}"]
    parts += [f"{gathered.known:,} known"] if gathered.known else []
    parts += [f"{gathered.paid_twice:,} paid for twice (the first stays)"] if gathered.paid_twice else []
    parts += [f"{gathered.unreadable:,} unreadable, to be asked again"] if gathered.unreadable else []
    parts += ["the file is damaged: what could be read is kept"] if gathered.is_damaged else []
    return ", ".join(parts)
