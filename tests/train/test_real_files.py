"""Unmodified public files in every trainer: each row is used, dropped or reported."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datagen_train import dpo, pretrain, sft
from datagen_train.errors import CheckFailed
from tests.conftest import REAL_DATA
from tests.train.runs import train

TALKS = "formats/medicalgpt_sft_sharegpt.jsonl"
LONG = "the prompt alone fills --max-length 1024"
SAME = "chosen and rejected are the same tokens"
# trainer, file: rows read, lines that could not be used, rows dropped with the reason, sequences cut, sequences made
CASES: list[tuple[ModuleType, str, int, int, dict[str, int], int, int]] = [
    (sft, TALKS, 200, 0, {LONG: 17}, 32, 183),
    (sft, "sft/oasst_zh_sft_dev.json", 339, 0, {LONG: 40}, 56, 299),
    (sft, "sft/sharegpt_dummy.json", 500, 0, {}, 0, 500),
    (sft, "formats/medicalgpt_grpo.jsonl", 200, 0, {}, 0, 200),
    (pretrain, "formats/medicalgpt_pretrain.txt", 300, 0, {}, 0, 301),
    (pretrain, "corpus/wiki_dev.txt", 18, 0, {}, 0, 310),
    (dpo, "prefs/hhh_dev.jsonl", 69, 0, {LONG: 3}, 9, 66),
    (dpo, "prefs/hh_rlhf_transcripts_dev.jsonl", 25, 0, {}, 2, 25),
    (dpo, "prefs/dpo_sharegpt_en_dev.json", 188, 0, {SAME: 1, LONG: 73}, 92, 114),
    (dpo, "prefs/oasst_zh_rank_dev.json", 368, 1, {LONG: 31}, 83, 336),
    (dpo, "formats/medicalgpt_reward_v4.jsonl", 100, 0, {LONG: 7}, 18, 93),
]


def real(name: str) -> Path:
    if not (REAL_DATA / name).exists():
        pytest.skip(f"the public files are not here: ../shared/data/{name}")
    return REAL_DATA / name


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model after one step, with a tokenizer trained on real conversations."""
    folder = tmp_path_factory.mktemp("models") / "chinese"
    train(sft, real(TALKS), output=str(folder), steps=1, batch_size=2, held_out=0, max_length=256)
    return str(folder)


@pytest.mark.parametrize(
    ("module", "name", "read", "unreadable", "dropped", "cut", "sequences"), CASES, ids=[case[1] for case in CASES]
)
def test_every_row_of_a_real_file_is_accounted_for(
    module: ModuleType,
    name: str,
    read: int,
    unreadable: int,
    dropped: dict[str, int],
    cut: int,
    sequences: int,
    chinese: str,
) -> None:
    options: dict[str, Any] = {"model": chinese} if module is dpo else {}
    result = train(module, real(name), output="out", steps=1, batch_size=2, held_out=0.02, **options)
    rows = result["rows"]
    assert (rows["read"], rows["unreadable"], rows["dropped"], rows["cut"]) == (read, unreadable, dropped, cut)
    assert rows["train"] + rows["held_out"] == sequences
    if module is sft:
        assert read == sequences + unreadable + sum(dropped.values())


def test_a_file_of_which_most_cannot_be_used_is_refused_with_the_numbers() -> None:
    with pytest.raises(CheckFailed, match=r"length: \d+ of \d+ rows are dropped, \d+ because: the prompt alone"):
        train(sft, real("sft/glaive_toolcall_100.json"), output="out", steps=1, max_length=800)
