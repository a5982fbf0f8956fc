"""Time of a novelty check against pools of 1,000 to 1,000,000 instructions.

    python -m benchmarks.novelty [--quick]

Texts are drawn from a vocabulary with Zipf's law, 21 words on average; every second candidate is a text of the pool
with up to half of its words replaced, so that many lie near the threshold. `templated` is the hard case: all
texts share four sentences, into which words are set. The baseline is rouge-score where it is installed (`pip install
rouge-score`), on tokens made before the clock starts, as Alpaca uses it; otherwise the same table in plain Python.
Times are processor time of one core. Decisions are compared with an exhaustive check (the longest common subsequence
with every text of the pool).
"""

import gc
import random
import resource
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import accumulate
from time import process_time
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from benchmarks.common import Line, in_fresh_process, main
from datagen.select.novelty import THRESHOLD, Pool
from datagen.text import tokens

VOCABULARY = 6_000
WEIGHTS = list(accumulate(1 / (rank + 2) for rank in range(VOCABULARY)))
TEMPLATES = (
    "write a {} story about a {} {} who wants to {} the {} before the {} {}",
    "explain in {} words why the {} {} of a {} is not the {} of the {}",
    "give me {} {} ideas for a {} that a {} can {} with {} and {}",
    "classify the {} of the following {} as {} or {} and say which {} {} it names",
)
TARGET = 50_000
Draw = Callable[[random.Random], str]


class Measured(NamedTuple):
    """ms per candidate, ms per text added, number of near-duplicates, number of equal decisions, MB."""

    query: float
    add: float
    repeats: int
    agrees: int
    memory: float


def words(chance: random.Random, count: int) -> list[str]:
    return [f"w{number}" for number in chance.choices(range(VOCABULARY), cum_weights=WEIGHTS, k=count)]


def plain(chance: random.Random) -> str:
    return " ".join(words(chance, max(3, int(chance.lognormvariate(2.95, 0.45)))))


def templated(chance: random.Random) -> str:
    template = chance.choice(TEMPLATES)
    return template.format(*words(chance, template.count("{}")))


def candidates(chance: random.Random, pool: list[str], count: int, draw: Draw) -> list[str]:
    return [draw(chance) if number % 2 else replace_words(chance, chance.choice(pool)) for number in range(count)]


def replace_words(chance: random.Random, text: str) -> str:
    """Replace up to half of the words."""
    share = chance.random() / 2
    return " ".join(words(chance, 1)[0] if chance.random() < share else word for word in text.split())


def measure_pool(size: int, count: int, draw: Draw, check: int) -> Measured:
    """Fill a pool, check the candidates, and compare the first `check` decisions with exhaustive ones."""
    chance = random.Random(1)
    texts = [draw(chance) for _ in range(size)]
    queries = candidates(chance, texts, count, draw)
    gc.disable()
    pool = Pool()
    began = process_time()
    for text in texts:
        pool.add(text)
    filled = process_time()
    novel = [pool.is_novel(text) for text in queries]
    ended = process_time()
    agrees = sum(a == b for a, b in zip(novel, exhaustive(texts, queries[:check]), strict=False))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(1e3 * (ended - filled) / count, 1e3 * (filled - began) / size, novel.count(False), agrees, memory)


def exhaustive(texts: list[str], queries: list[str]) -> list[bool]:
    """Decide by the longest common subsequence with every text."""
    numbers: dict[str, int] = {}
    encode = partial(_encode, numbers)
    choices = list(map(encode, texts))
    lengths = np.array(list(map(len, choices)))
    decided = []
    for text in map(encode, queries):
        (common,) = cdist([text], choices, scorer=LCSseq.similarity, dtype=np.uint32)
        decided.append(bool((2 * common / (lengths + len(text)) <= THRESHOLD).all()))
    return decided


def _encode(numbers: dict[str, int], text: str) -> str:
    return "".join(chr(numbers.setdefault(token, len(numbers))) for token in tokens(text))


def table_score(one: list[str], other: list[str]) -> float:
    """ROUGE-L F by dynamic programming, row by row."""
    above = [0] * (len(other) + 1)
    for token in one:
        row = [0]
        for place, its in enumerate(other):
            row.append(above[place] + 1 if token == its else max(above[place + 1], row[place]))
        above = row
    return 2 * above[-1] / (len(one) + len(other))


def baseline() -> tuple[str, Callable[[list[str], list[str]], float]]:
    try:
        scorer = import_module("rouge_score.rouge_scorer")
    except ModuleNotFoundError:
        return "plain Python, rouge-score's way", table_score
    return "rouge-score", lambda one, other: float(scorer._score_lcs(one, other).fmeasure)


def measure_baseline(size: int, count: int) -> tuple[str, float, int]:
    """Return the baseline's name, its ms per candidate, and how many decisions agree with ours."""
    name, score = baseline()
    chance = random.Random(1)
    texts = [plain(chance) for _ in range(size)]
    queries = candidates(chance, texts, count, plain)
    pool = Pool()
    for text in texts:
        pool.add(text)
    ready, ours = list(map(tokens, texts)), list(map(pool.is_novel, queries))
    began = process_time()
    novel = [max(score(its, tokens(text)) for its in ready) <= THRESHOLD for text in queries]
    return name, 1e3 * (process_time() - began) / count, sum(a == b for a, b in zip(novel, ours, strict=True))


def line(size: int, count: int, draw: Draw, check: int, slow: tuple[str, float, int] | None = None) -> Line:
    measured = in_fresh_process(measure_pool, size, count, draw, check)
    times = f"{measured.query:.3f} ms, {1e3 * measured.add:.0f} µs to add"
    if slow:
        times += f"; {slow[0]} {slow[1]:,.0f} ms: {slow[1] / measured.query:,.0f} ×"
    agree = (
        f"{measured.agrees} of {check} decisions as by all LCS, {measured.repeats} of {count} repeat, "
        f"{measured.memory:.0f} MB"
    )
    return Line(f"{draw.__name__} texts, pool of {size:,}", "≤ 1 ms" if size == TARGET else "", times, agree)


def measure(quick: bool) -> Iterator[Line]:
    if quick:
        yield line(1_000, 100, plain, 100, in_fresh_process(measure_baseline, 1_000, 5))
        yield line(TARGET, 100, plain, 20)
        return
    for size, count in ((1_000, 100), (10_000, 10), (TARGET, 4)):
        slow = in_fresh_process(measure_baseline, size, count)
        assert slow[2] == count, "a decision differs from the baseline's"
        yield line(size, 300, plain, 300, slow)
    yield line(TARGET, 300, templated, 300)
    for draw in (plain, templated):
        yield line(1_000_000, 300, draw, 20)


if __name__ == "__main__":
    main(measure)
