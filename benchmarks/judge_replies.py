"""How well the replies of judges are read, by model family: `python -m benchmarks.judge_replies`.

The replies are those of tests/judge/reply_corpus.py, written in the manner of each family. The families that are held
out were not looked at while the rules were written.
"""

from collections import Counter

from tests.judge.reply_corpus import OUTCOMES, outcomes_by_family


def table() -> list[str]:
    """Return the lines of the table, in Markdown."""
    lines = [f"| family | n | {' | '.join(OUTCOMES)} |", "|---|---|---|---|---|"]
    for held_out, name in ((False, "all of these"), (True, "all held out")):
        families = outcomes_by_family(held_out=held_out)
        total = sum(families.values(), Counter[str]())
        for family, counts in {**families, name: total}.items():
            label = f"{family} (held out)" if held_out and counts is not total else family
            lines.append(f"| {label} | {counts.total()} | {' | '.join(str(counts[one]) for one in OUTCOMES)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
