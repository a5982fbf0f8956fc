"""Chinese prompts get Chinese templates, and no rule drops them for being Chinese. Real ones from OpenAssistant."""

from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.records.reader import PROMPTS, Reader
from datagen.records.record import Record, request_text
from datagen.select import first_reason
from datagen.select.heuristics import FILTERS
from datagen.select.instructions import CHINESE, USER_TURN
from datagen.select.novelty import Novelty
from datagen.text import CJK
from datagen.verify.languages import is_chinese
from tests.jobs import evolve, rows
from tests.server import Message, Server, running

EXCUSED = {
    "谢谢", "继续", "蛤？", "1+2",  # too short for a task, in any language
}  # fmt: skip


@pytest.fixture
def real(real_data: Path) -> Path:
    return real_data / "sft" / "oasst_zh_sft_dev.json"


def seeds_of(path: Path) -> list[Record]:
    with path.open("rb") as file:
        return [item for item in Reader(str(path), file, PROMPTS).read() if isinstance(item, Record)]


def requests_of(path: Path) -> list[str]:
    """Return the different requests of users."""
    return list(dict.fromkeys(request_text(seed.prompt) for seed in seeds_of(path)))


def test_chinese_seeds_evolve_in_chinese_and_others_do_not(real: Path) -> None:
    evolve(real, "sim", rounds=2)
    seeds = seeds_of(real)
    chinese = {seed.id for seed in seeds if is_chinese(request_text(seed.prompt))}
    assert len(seeds) - len(chinese) < 10
    for row in rows("out.jsonl"):
        of_chinese = row["meta"]["seed_id"] in chinese
        assert row["meta"]["template"].endswith(".zh") == of_chinese
        assert is_chinese(request_text(row["prompt"])) == of_chinese, row["prompt"]
        worked_out = "The result is" in row["response"]
        assert not of_chinese or worked_out or CJK.search(row["response"]), row["response"]


def test_no_rule_drops_a_prompt_for_being_chinese(real: Path) -> None:
    evolve(real, "sim", rounds=2, limit=120)
    assert {row["reason"] for row in rows("out.rejected.jsonl")} == {"duplicate"}, "the file has equal questions"
    mismatches = [
        (name, row["prompt"])
        for row in rows("out.jsonl")
        for name, rule in FILTERS.items()
        if is_chinese(request_text(row["prompt"])) and rule(Record(row["id"], row["prompt"], row["response"]))
    ]
    assert mismatches == []


def test_real_chinese_requests_are_instructions(real: Path) -> None:
    requests = requests_of(real)
    for rules in (CHINESE, USER_TURN):
        dropped = {text: reason for text in requests if (reason := first_reason(rules, text))}
        assert dropped.keys() >= EXCUSED
        assert set(dropped.values()) <= {"too_short", "too_long", "starts_with_punctuation"}
        assert len(dropped) <= len(EXCUSED) + 5, dropped


def test_different_chinese_questions_are_new_and_equal_ones_are_not(real: Path) -> None:
    novelty = Novelty(0.7)
    requests = requests_of(real)
    reasons = [novelty.drops({"id": f"first {n}", "prompt": text}) for n, text in enumerate(requests)]
    assert sum(reason is not None for reason in reasons) <= 0.03 * len(requests)
    again = [novelty.drops({"id": f"again {n}", "prompt": text}) for n, text in enumerate(requests)]
    assert again == [reason or "duplicate" for reason in reasons]


@pytest.mark.parametrize(
    ("prompt", "lang", "chinese"),
    [
        ("介绍京剧。", "auto", True),
        ("自动给commit增加message", "auto", True),
        ("Name a river.", "auto", False),
        ("Translate 你好 into plain English, please.", "auto", False),
        ("東京の天気はどうですか。", "auto", False),
        ("1+2", "auto", False),
        ("Name a river.", "zh", True),
        ("介绍京剧。", "en", False),
    ],
)
def test_the_templates_are_in_the_language_of_the_seed_or_of_lang(prompt: str, lang: str, chinese: bool) -> None:
    requests: list[list[Message]] = []

    def answer(model: str, messages: list[Message], sample: int, task: str) -> str:
        requests.append(messages)
        return "Verdict: not equal" if task == "evolve/equal" else f"A longer story {sample}."

    Path("seeds.txt").write_text(prompt + "\n")
    with running(Server(answer=answer)) as server:
        evolve(Path("seeds.txt"), f"m@{server.url}", rounds=2, lang=lang)
    systems = [messages[0]["content"] for messages in requests if messages[0]["role"] == "system"]
    assert len(systems) == 4, "two rewrites and two verdicts"
    assert {is_chinese(text) for text in systems} == {chinese}


@pytest.mark.parametrize("style", ["code", "math"])
def test_a_language_that_a_style_lacks_is_reported(style: str) -> None:
    Path("seeds.txt").write_text("介绍京剧。\n")
    with pytest.raises(InputError, match=r"--lang zh: code and math have English prompts only"):
        evolve(Path("seeds.txt"), "sim", style=style, lang="zh")
    evolve(Path("seeds.txt"), "sim", style=style)
