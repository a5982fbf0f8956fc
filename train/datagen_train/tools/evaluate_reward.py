"""`datagen train eval` on a reward model: how often it is right about rankings that it was not trained on."""

from collections import Counter
from typing import Any

from datagen.errors import InputError
from datagen.records.files import open_input
from datagen.records.ranked import RANKED, Ranked
from datagen.records.reader import Reader
from datagen.records.record import BadLine
from datagen_train.data.encode import UnusableRow
from datagen_train.data.rankings import EncodedRanking, RankingEncoder
from datagen_train.data.split import is_held_out, split_group
from datagen_train.models.reward_model import raw_scores
from datagen_train.reward import describe, verdict
from datagen_train.rewards.reward_model import load_reward


def run(folder: str, data: str, options: Any) -> dict[str, Any]:
    """Measure a reward model on a file of rankings; the options are those of `datagen train eval`."""
    reward = load_reward(folder)
    rows, unreadable = read(data, options)
    encoder, rankings, dropped = RankingEncoder(reward.encoder), list[EncodedRanking](), Counter[str]()
    for row in rows:
        try:
            rankings.append(encoder.encode(row))
        except UnusableRow as reason:
            dropped[str(reason)] += 1
    if not rankings:
        raise InputError(f"{data}: no row is left to measure on: {dict(dropped)}")
    answers = [ids for each in rankings for ids in each.answers]
    raw = raw_scores(reward.model, answers, pad_id=reward.contract.pad, batch_size=options.batch_size)
    told = describe(rankings, raw, seed=0)
    counts = {"dropped": dict(sorted(dropped.items())), "left_out": dict(sorted(encoder.left_out.items()))}
    return {"rows": len(rows), "unreadable": unreadable, **counts, **told, "verdict": verdict(told)}


def read(data: str, options: Any) -> tuple[list[Ranked], int]:
    """Return the rankings to measure on, and how many lines could not be used."""
    with open_input(data) as file:
        items: list[Ranked | BadLine] = list(Reader(data, file, RANKED, options.format).read())
    rows = [item for item in items if isinstance(item, Ranked)]
    kept = [row for row in rows if options.held_out is None or is_held_out(split_group(row), options.held_out)]
    return kept[: options.limit], len(items) - len(rows)
