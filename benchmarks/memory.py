"""Memory growth of a run: 100,000 rows compared with 1,000.

    python -m benchmarks.memory

The peak of the resident set (VmHWM) of a process of its own for each size. `respond`, 256 in flight, a server that
answers at once, the input streamed from a file, rows written in order. Then commands that call no model.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import Line, in_fresh_process, main, run, write_rows
from benchmarks.remote import serving
from datagen.commands.table import load_methods
from tests.memory import COMMANDS, growth_of


def peak(rows: int, model: str) -> float:
    """Run `rows` rows; return the peak memory in MB."""
    with TemporaryDirectory() as folder:
        result = run(load_methods("respond")["direct"], write_rows(Path(folder), rows), model, concurrency="256")
        assert result.outcome.result["funnel"]["kept"] == rows
    status = Path("/proc/self/status").read_text()  # getrusage would count what the parent had at the fork
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(quick: bool) -> Iterator[Line]:
    few, many = 1_000, 10_000 if quick else 100_000
    with serving() as server:
        low, high = (in_fresh_process(peak, rows, server.model) for rows in (few, many))
    growth = (high - low) * 100_000 / (many - few)
    measured = f"{growth:.1f} MB ({low:.0f} MB at {few:,} rows, {high:.0f} MB at {many:,})"
    yield Line("memory, growth per 100,000 rows", "≤ 8 MB", measured, "14 to 21 bytes for each id and prompt seen")
    with TemporaryDirectory() as folder:
        for command in COMMANDS:
            growth = growth_of(command, many // 10, many, Path(folder))
            yield Line(f"memory of {command}", "flat", f"{growth:.0f} bytes a row", "a digest for each row")


if __name__ == "__main__":
    main(measure)
