"""How long the command line takes to answer, and to send its first request.

    python -m benchmarks.startup

Medians of five. Beside them, as what can be had here: an interpreter that does nothing, and one that imports the
client library.
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


def seconds(*arguments: str) -> float:
    """Run Python with these arguments, again and again; return the median time."""
    took = []
    for _ in range(TIMES):
        start = monotonic()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        took.append(monotonic() - start)
    return median(took)


def first_request(server: Remote) -> float:
    """Return the median time from a command's start to the arrival of its first request."""
    took = []
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
            took.append(server.record().log[before].at - start)
    return median(took)


def measure(quick: bool) -> list[Line]:
    nothing, client = seconds("-c", "pass"), seconds("-c", "import openai")
    helped = seconds("-m", "datagen", "--help")
    with serving(evolve_answer) as server:
        first = first_request(server)
    return [
        Line("datagen --help", "< 0.3 s", f"{helped:.2f} s (python: {nothing:.2f} s)", "import of typer and rich"),
        Line("first request after start", "< 0.9 s", f"{first:.2f} s (import openai: {client:.2f} s)", "that import"),
    ]


if __name__ == "__main__":
    main(measure)
