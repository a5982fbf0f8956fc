"""Start-up time of the command line: until `--help` is printed, and until the first request is sent.

    python -m benchmarks.startup

Medians of three, with compiled modules, as an installed package has them; on a machine that does other work as well,
the seconds of the processor tell more. For comparison, in the same table: the start of an interpreter that does
nothing, and of one that imports the client library.
"""

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.common import Line, Seconds, main, time_process, write_rows
from benchmarks.remote import Remote, serving
from tests.server import evolve_answer

TIMES = 3


def median_seconds(*arguments: str) -> Seconds:
    """Run Python with these arguments several times, and once before; return the medians."""
    times = [time_process(*arguments) for _ in range(1 + TIMES)][1:]
    return Seconds(median(time.wall for time in times), median(time.cpu for time in times))


def first_request(server: Remote) -> float:
    """Return the median time from the start of `datagen respond` to the arrival of its first request."""
    times = []
    with TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), 10)
        for number in range(1 + TIMES):
            model = f"local#{number}@{server.url}"  # another tag: nothing is replayed
            command = ("-m", "datagen", "respond", str(rows), "-o", str(rows.with_name(f"out{number}.jsonl")))
            before, start = len(server.record().log), monotonic()
            time_process(*command, "--model", model, "-q")
            times.append(server.record().log[before].at - start)
    return median(times[1:])


def measure(quick: bool) -> list[Line]:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the first run of each writes the compiled modules
    python, client = median_seconds("-c", "pass"), median_seconds("-c", "import openai")
    help_text = median_seconds("-m", "datagen", "--help")
    with serving(evolve_answer) as server:
        first = first_request(server)
    return [
        Line("datagen --help", "< 0.3 s", f"{show(help_text)} (python: {show(python)})", "import of typer and rich"),
        Line("first request after start", "< 0.9 s", f"{first:.2f} s (import openai: {show(client)})", "that import"),
    ]


def show(seconds: Seconds) -> str:
    return f"{seconds.wall:.2f} s, {seconds.cpu:.2f} s of the processor"


if __name__ == "__main__":
    main(measure)
