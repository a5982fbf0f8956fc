"""The peak memory of a command, in a process of its own, and how it grows with the rows of its input."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

COMMANDS = {
    "convert to lines": "convert rows.jsonl --to trl -o trl.jsonl",
    "convert to csv": "convert ranked.jsonl --to csv -o table.csv",
    "convert to audit": "convert rows.jsonl --to audit -o sheet.csv",
    "respond --dry-run": "respond rows.jsonl --model sim --dry-run -o out.jsonl",
    "filter": "filter rows.jsonl --rule none -o passed.jsonl",
    "filter --dedup 1": "filter rows.jsonl --rule none --dedup 1 -o kept.jsonl",
    "pairs": "pairs ranked.jsonl -o pairs.jsonl",
    "trace": "trace ID",
}
"""What is done with the files of `write_rows`; ID is that of a row of pairs.jsonl."""
CODE = """
import sys
from pathlib import Path
from datagen.commands.main import main

place = Path(sys.argv.pop(1))
try:
    main()
finally:
    place.write_text(Path("/proc/self/status").read_text())
"""


def peak_of(*command: str | Path, folder: Path = Path()) -> int:
    """Run `datagen` with these arguments in a folder; return the largest resident set of its process, in bytes.

    The process reads it itself: `getrusage` counts what its parent had at the fork.
    """
    with TemporaryDirectory() as place:
        file = Path(place, "status")
        subprocess.run([sys.executable, "-c", CODE, file, *command], cwd=folder, check=True, capture_output=True)
        return int(file.read_text().partition("VmHWM:")[2].split()[0]) << 10


def write_rows(folder: Path, count: int) -> None:
    """Write prompts with a response, and with two ranked answers."""
    random, words = Random(0), [f"word{number}" for number in range(1_000)]
    with (folder / "rows.jsonl").open("w") as rows, (folder / "ranked.jsonl").open("w") as ranked:
        for number in range(count):
            prompt, first, second = (" ".join([str(number), *random.choices(words, k=30)]) for _ in range(3))
            print(json.dumps({"prompt": prompt, "response": first}), file=rows)
            answers = {"responses": [first, second], "ranks": [1, 2], "scores": [5, 1]}
            print(json.dumps({"prompt": prompt, **answers}), file=ranked)


def growth_of(command: str, few: int, many: int, place: Path) -> float:
    """Return the bytes of memory that a row more takes in one of COMMANDS; `place` keeps the files of both sizes."""
    peaks = []
    for count in (few, many):
        folder = place / str(count)
        if not folder.exists():
            folder.mkdir()
            write_rows(folder, count)
        line = COMMANDS[command]
        if "ID" in line:
            row = (folder / "pairs.jsonl").read_text().splitlines()[count // 2]
            line = line.replace("ID", json.loads(row)["id"])
        peaks.append(peak_of(*line.split(), folder=folder))
    return (peaks[1] - peaks[0]) / (many - few)
