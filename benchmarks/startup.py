"""Start-up time of the command line: until `--help` is printed, and until the first request is sent.

    python -m benchmarks.startup

Medians of five. For comparison, in the same table: the start of an interpreter that does nothing, and of one that
imports the client library.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.common import Line, main, write_rows
from benchmarks.remote import Remote, serving
from tests.server import evolve_answer

TIMES = 5
ROOT = Path(__file__).resolve().parent.parent


def median_seconds(*arguments: str) -> float:
    """Run Python with these arguments several times; return the median time."""
    times = []
    for _ in range(TIMES):
        start = monotonic()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        times.append(monotonic() - start)
    return median(times)


def first_request(server: Remote) -> float:
    """Return the median time from a command's start to the arrival of its first request."""
    times = []
    with TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), 10)
        for number in range(TIMES):
            before, start = len(server.record().log), monotonic()
            output = str(rows.with_name(f"out{number}.jsonl"))
            model = f"local#{number}@{server.url}"  # another tag: nothing is replayed
            command = [
                sys.executable,
                "-m",
                "datagen.commands.main",
                "evolve",
                str(rows),
                "-o",
                output,
                "--model",
                model,
                "-q",
            ]
            subprocess.run(command, cwd=ROOT, check=True)
            times.append(server.record().log[before].at - start)
    return median(times)


def measure(quick: bool) -> list[Line]:
    python_seconds, client_seconds = median_seconds("-c", "pass"), median_seconds("-c", "import openai")
    help_seconds = median_seconds("-m", "datagen", "--help")
    with serving(evolve_answer) as server:
        first_seconds = first_request(server)
    return [
        Line(
            "datagen --help",
            "< 0.3 s",
            f"{help_seconds:.2f} s (python: {python_seconds:.2f} s)",
            "import of typer and rich",
        ),
        Line(
            "first request after start",
            "< 0.9 s",
            f"{first_seconds:.2f} s (import openai: {client_seconds:.2f} s)",
            "that import",
        ),
    ]


if __name__ == "__main__":
    main(measure)
