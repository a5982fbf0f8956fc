"""`datagen report` with 100,000 rows behind it: time, memory, the size of the page, and how long a browser takes.

    python -m benchmarks.report [--quick]

The rows are those of an evolve of four rounds, made up here: a quarter as many seeds, a rejected row for every ten, a
judged difficulty for each row. The command runs in a process of its own. The page is opened by Chromium, if it is here;
what it takes to show an empty page is subtracted.
"""

import json
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.common import ROOT, Line, main
from datagen.generators.evolve import RoundTable
from datagen.judges.difficulty import DifficultyTable
from datagen.records.files import content_digest, dump_line, write_json
from datagen.records.layout import pack_rejected, pack_row
from datagen.records.record import Row, keep, reject, row_id
from datagen.records.usage import Usage

ROUNDS = 4
WORDS = "river bread signal garden winter ledger copper window morning sail number letter answer engine lamp".split()
OPERATORS = ("deepen", "breadth", "concretise")
BROWSER = next(filter(None, map(which, ("chromium", "google-chrome", "chromium-browser"))), None)
PEAK = "import resource, sys; from datagen.commands.main import app; "
RUN = PEAK + (
    "sys.argv[0] = 'datagen'\n"
    "try:\n    app()\n"
    "finally:\n    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
)


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choices(WORDS, k=words)).capitalize() + "?"


def write_outputs(folder: Path, count: int) -> None:
    """Write seeds, an evolved file of `count` rows, and a file with their difficulty."""
    random, rounds, difficulty = Random(0), RoundTable(), DifficultyTable()
    seeds = [{"prompt": sentence(random, 12) + f" ({number})"} for number in range(count // ROUNDS)]
    (folder / "seeds.jsonl").write_bytes(b"".join(map(dump_line, seeds)))
    names = ("evolved.jsonl", "evolved.rejected.jsonl", "judged.jsonl", "judged.rejected.jsonl")
    files = [(folder / name).open("wb") for name in names]
    reasons: Counter[str] = Counter()
    for row in evolved_rows(seeds, random):
        candidate = keep(row)
        if random.random() < 0.1:
            reason = random.choice(("no_gain", "leaked", "apology"))
            record = {"id": row["meta"]["parents"][0], "prompt": row["prompt"], "meta": {}}
            candidate = reject(reason, stage="judge", record=record, reply=row["response"], meta=row["meta"])
            files[1].write(dump_line(pack_rejected(candidate.row)))
            reasons[reason] += 1
            rounds.add(candidate)
            continue
        rounds.add(candidate)
        files[0].write(dump_line(pack_row(row)))
        points = min(10, 2 + row["meta"]["round"] + random.randint(0, 2))
        meta = {"method": "judge", "op": "difficulty", "parents": [row["id"]], "seed_id": row["meta"]["seed_id"]}
        meta |= {"round": row["meta"]["round"], "difficulty": points}
        judged = {"id": row_id("judge", [row["id"]], 0, points), **row, "meta": meta}
        difficulty.add(keep(judged))
        files[2].write(dump_line(pack_row(judged)))
    for file in files:
        file.close()
    kept = sum(counts["kept"] for counts in rounds.rounds.values())
    write_meta(folder, "evolved", "evolve general", "seeds.jsonl", kept, reasons, rounds.as_dict())
    write_meta(folder, "judged", "judge difficulty", "evolved.jsonl", kept, Counter(), difficulty.as_dict())


def evolved_rows(seeds: list[Row], random: Random) -> Iterator[Row]:
    """Yield the rows of all rounds of all seeds."""
    for place, seed in enumerate(seeds):
        first = parent = row_id("seed", [], place, seed["prompt"])
        prompt = seed["prompt"]
        for number in range(1, ROUNDS + 1):
            before, prompt = prompt, f"{prompt} {sentence(random, 9)}"
            meta: dict[str, Any] = {"method": "evolve", "op": random.choice(OPERATORS), "parents": [parent]}
            meta |= {"seed_id": first, "model": "qwen3:8b", "round": number, "finish_reason": "stop"}
            meta |= {"words_before": len(before.split()), "words_after": len(prompt.split())}
            parent = row_id("evolve", [parent], number, prompt)
            yield {"id": parent, "prompt": prompt, "response": sentence(random, random.randint(20, 200)), "meta": meta}


def write_meta(
    folder: Path, name: str, command: str, source: str, kept: int, reasons: Counter[str], table: dict[str, Any]
) -> None:
    total = kept + reasons.total()
    part = {"role": "judge", "model": "qwen3:8b", "template": "x", **Usage(total, 90 * total, 200 * total).as_row()}
    funnel = {"asked": total, "kept": kept, "rejected": dict(reasons), "failed": {}, "unreadable": 0, "unobtained": {}}
    result = {
        "status": "finished",
        "fingerprint": {"command": command, "input": content_digest(folder / source)},
        "funnel": funnel,
        "usage": {name: value for name, value in part.items() if name not in ("role", "model", "template")},
        "spending": [part],
        "table": table,
    }
    run = {"input": source, "began": f"2026-01-0{len(name)}T00:00:00Z", "seconds": 1.0, "requests": total}
    write_json(folder / f"{name}.meta.json", {"result": result, "run": run})


def report(folder: Path) -> tuple[float, int]:
    """Write the page of a folder; return seconds of a processor, and the peak of memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "report"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    peak = re.search(r"^peak (\d+)$", ran.stderr, re.MULTILINE)
    assert ran.returncode == 0 and peak, ran.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(peak[1])


def opened(page: Path) -> float | None:
    """Return the seconds that a browser takes to show a page, beyond those for an empty one; None without a browser."""
    if BROWSER is None:
        return None
    empty = page.with_name("empty.html")
    empty.write_text("<!doctype html><title>empty</title>")
    return median(browse(page) - browse(empty) for _ in range(5))


def browse(page: Path) -> float:
    """Start a browser, and take a picture of a page; return the seconds."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    picture = f"--screenshot={page.with_suffix('.png')}"
    command = [str(BROWSER), *flags, f"--user-data-dir={page.parent / 'profile'}", picture, page.as_uri()]
    start = perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - start


def measure(quick: bool) -> Iterator[Line]:
    few, many = 1_000, 20_000 if quick else 100_000
    peaks, sizes, seconds = [], [], 0.0
    shown: float | None = None
    for count in (few, many):
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_outputs(folder, count)
            seconds, peak = report(folder)
            page = folder / "report.html"
            peaks.append(peak)
            sizes.append(page.stat().st_size / 1024)
            shown = opened(page)
            rows = json.loads((folder / "evolved.meta.json").read_text())["result"]["funnel"]["kept"]
    yield Line(f"report, {2 * rows:,} rows in 2 files", "-", f"{seconds:.1f} s of a processor", "JSON, counting words")
    growth = f"{peaks[1] - peaks[0]} MB ({peaks[0]} MB at {few:,} rows, {peaks[1]} MB at {many:,})"
    yield Line("report, growth of memory", "≤ 40 MB", growth, "16 bytes a row, and the sample")
    yield Line("report, size of the page", "≤ 1 MB", f"{sizes[1]:.0f} kB ({sizes[0]:.0f} kB)", "sample rows")
    opening = "no browser here" if shown is None else f"{shown:.2f} s"
    yield Line("report, a browser shows the page", "≤ 2 s", opening, "layout")


if __name__ == "__main__":
    main(measure)
