"""`datagen review SAMPLES`: a page on this machine where people rank answers, blind (judges/review/).

`datagen judge --by human` reads the log of votes.
"""

import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from threading import Thread

from datagen.commands.next_steps import line
from datagen.commands.terminal import columns
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.installation import shown
from datagen.judges.review.server import Review, Server
from datagen.judges.review.summary import Summary, summarize
from datagen.judges.review.votes import Log
from datagen.printing import printable
from datagen.records.files import open_input, output_stem
from datagen.records.places import paths_in, refuse_overlap
from datagen.records.ranked import SAMPLES
from datagen.records.reader import Reader
from datagen.records.record import BadLine, Record
from datagen.signals import on_stop
from datagen.text import count_of

ARGUMENTS = (("samples", "A file of samples, ranked rows or preferences."),)


@dataclass(frozen=True)
class Options:
    """Options of `datagen review`."""

    by: str | None = option(None, "Name of the reviewer, stored with each vote. [the login name]")
    votes: Path | None = option(None, "File of votes. [SAMPLES.votes.jsonl]")
    limit: int | None = option(None, "Show only the first N rows.", least=1)
    strict: bool = option(False, "Stop at the first unusable input line.")
    port: int = option(0, "Local port of the page; 0 = any free port.", least=0, most=65535)
    open: bool = option(False, "Open the page in the browser.")


def run(samples: str, options: Options) -> int:
    """Serve the page until Ctrl-C, then print the result and the next command; return the exit code."""
    if samples == "-" and options.votes is None:
        raise InputError("samples from standard input need --votes FILE, the log")
    path = options.votes or Path(f"{output_stem(samples)}.votes.jsonl")
    refuse_overlap([path], paths_in([samples]))
    records = list(read_samples(samples, options))
    if not records:
        raise InputError(f"{samples}: no row with two answers to compare. Generate them with 'datagen respond -k 4'")
    log = Log(path, options.by or getuser(), records)
    if log.cut:
        print(f"{printable(path)}: removed {log.cut} bytes of an incomplete vote", file=sys.stderr)
    review = Review(records, log)
    try:
        serve(review, options)
    finally:
        log.close()
    print(printable("\n".join(summary_lines(summarize(records, log.votes)))), file=sys.stderr)
    print(printable(line(f"judge {shown(samples)} --by human --votes {shown(path)}")), file=sys.stderr)
    return 0


def read_samples(name: str, options: Options) -> Iterator[Record]:
    """Yield the rows with answers to compare; report the others on standard error."""
    too_few = unusable = accepted = 0
    with open_input(name) as file:
        for item in Reader(name, file, SAMPLES).read():
            if isinstance(item, BadLine):
                if options.strict:
                    raise InputError(str(item))
                unusable += 1
                print(printable(item), file=sys.stderr)
            elif len(item.responses) < 2:
                too_few += 1
            elif options.limit is None or accepted < options.limit:
                accepted += 1
                yield item
    for count, noun, problem in ((unusable, "line", "cannot be used"), (too_few, "row", "with fewer than two answers")):
        if count:
            print(f"{printable(name)}: {count_of(count, noun)} {problem}, left out", file=sys.stderr)


def serve(review: Review, options: Options) -> None:
    """Serve a review until Ctrl-C."""
    try:
        server = Server(review, options.port)
    except OSError as error:
        raise InputError(f"--port {options.port}: cannot be used: {error.strerror}") from error
    with server:
        place = f"review at {server.link}\nvotes are recorded in {review.log.path}; Ctrl-C to end"

        def stop(_: int) -> bool:
            Thread(target=server.shutdown).start()  # it waits for the loop that this signal interrupts
            return True

        with on_stop(stop):
            print(printable(place), file=sys.stderr, flush=True)
            if options.open:
                webbrowser.open(server.link)
            server.serve_forever()
        print(file=sys.stderr)


def summary_lines(summary: Summary) -> list[str]:
    """Lay a summary out in columns."""
    cells = [["rows", str(summary.rows)], ["votes", str(summary.votes)]]
    cells += [[name.replace("_", " "), str(count)] for name, count in summary.verdicts.items()]
    if summary.pairs:
        cells.append(["pairs compared with the judge", str(summary.pairs)])
        shares = {"agreement": summary.agreement, "agreement without ties": summary.agreement_decided}
        cells += [[name, "-" if share is None else f"{share:.1%}"] for name, share in shares.items()]
        cells.append(["Cohen's kappa", "-" if summary.kappa is None else f"{summary.kappa:.3f}"])
    return columns(cells)
