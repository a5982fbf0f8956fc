"""What --dry-run prints: the first request, and the number of calls to expect."""

from datagen.commands.terminal import Display
from datagen.engine.forecast import DryRun
from datagen.engine.job import Job
from datagen.errors import nothing_usable
from datagen.llm.model import ATTEMPTS
from datagen.llm.prices import dollars
from datagen.printing import printable_json
from datagen.text import count_of


def report_dry_run(job: Job, dry: DryRun, display: Display) -> None:
    """Print the first request to standard output, and what to expect to standard error."""
    if not dry.records and job.method.reads_input:
        raise nothing_usable(job.reader.name)
    if dry.request:
        print(printable_json(dry.request))
    if job.method.reads_input:
        bad = f"; {count_of(dry.unreadable, 'line')} cannot be used" if dry.unreadable else ""
        display.print(f"{count_of(dry.records, 'row')} to read ({job.reader.shape}){bad}.")
    if job.roles:
        aim = "for one pass" if job.run.n is None else f"for {count_of(job.run.n, 'row')} if every candidate is kept"
        display.print(
            f"About {count_of(dry.calls, 'call')} {aim}; at most {dry.most_calls:,}, whatever the answers are "
            f"({ATTEMPTS} attempts for each)."
        )
        for line in range_lines(dry):
            display.print(line)
        for line in dry.comparisons:
            display.print(f"{line}.")
    display.print("Nothing was sent.")


def range_lines(dry: DryRun) -> list[str]:
    """Return the lines about tokens and dollars."""
    tokens = [f"{rounded(number):,}" for number in dry.tokens]
    lines = [
        f"Tokens of these calls: {tokens[0]} (short answers) to {tokens[1]} (each as long as --max-tokens allows); at "
        f"most {tokens[2]}."
    ]
    if dry.unpriced:
        return [*lines, f"Cost: unknown, there is no price for {', '.join(dry.unpriced)} (--price IN/OUT)."]
    if dry.cost is not None and dry.sources:
        cost = [dollars(number) for number in dry.cost]
        lines.append(f"Cost: {cost[0]} to {cost[1]}; at most {cost[2]} (prices: {', '.join(dry.sources)}).")
    return lines


def rounded(number: float) -> int:
    """Round a number to two digits."""
    return int(float(f"{number:.2g}"))
