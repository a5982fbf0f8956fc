"""Several files of rows in one run, each with a weight."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import InputError
from datagen_train import dpo, grpo, ppo, pretrain, reward, sft
from datagen_train.data.sources import Sources, parse_sources
from datagen_train.data.split import is_held_out
from datagen_train.data.trained import digest, read_trained
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.tools import check
from datagen_train.tools.options import CheckOptions
from tests.train.conftest import colour_rows
from tests.train.runs import train
from tests.train.tasks import problems, write_rows, write_sft

FAST: dict[str, Any] = {"steps": 1, "batch_size": 2, "held_out": 0}


def numbered(name: str, numbers: range) -> str:
    write_rows(name, [{"prompt": f"Number {name} {i}?", "response": str(i)} for i in numbers])
    return name


def counts(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["rows"]["train"], result["rows"]["held_out"], result["rows"]["read"]


def test_files_without_weights_are_one_file() -> None:
    chosen = problems(0)[:40]
    write_sft(Path("all.jsonl"), chosen)
    write_sft(Path("a.jsonl"), chosen[:25])
    write_sft(Path("b.jsonl"), chosen[25:])
    options: dict[str, Any] = {"steps": 2, "batch_size": 4, "held_out": 0.2}
    one = train(sft, "all.jsonl", output="one", **options)
    two = train(sft, ["a.jsonl", "b.jsonl"], output="two", **options)
    assert counts(one) == counts(two) and one["end"] == two["end"]
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    assert Path("one/run/trained.bin").read_bytes() == Path("two/run/trained.bin").read_bytes()
    assert "files" not in one["checks"]
    assert two["checks"]["files"].count("(weight 1)") == 2


def test_a_weight_is_epochs_of_its_file() -> None:
    a, b = numbered("a.jsonl", range(10)), numbered("b.jsonl", range(10))
    result = train(sft, [a, f"2.5*{b}"], output="out", **FAST)
    assert counts(result) == (10 + 25, 0, 20)
    assert result["checks"]["files"] == (
        "a.jsonl: 10 rows in an epoch, of 10 to train on (weight 1); "
        "b.jsonl: 25 rows in an epoch, of 10 to train on (weight 2.5)"
    )
    card = Path("out/README.md").read_text()
    assert "`a.jsonl`, `2.5*b.jsonl`" in card
    assert json.loads(Path("out/run/report.json").read_text())["run"]["files"] == ["a.jsonl", "2.5*b.jsonl"]


def test_check_says_of_several_files_what_a_trainer_says() -> None:
    data = [numbered("a.jsonl", range(3)), f"0.5*{numbered('b.jsonl', range(8))}"]
    trained = train(sft, data, output="out", **FAST)
    shown = check.run(data, CheckOptions(rows=0))
    assert shown["files"] == trained["checks"]["files"]
    assert shown["rows"]["read"] == trained["rows"]["read"] == 11
    Path("empty.jsonl").write_text("{}\n")
    for refuse in (lambda: train(sft, ["a.jsonl", "empty.jsonl"], output="no", **FAST), check_empty):
        with pytest.raises(InputError, match=r"^empty\.jsonl: "):
            refuse()


def check_empty() -> None:
    check.run(["a.jsonl", "empty.jsonl"], CheckOptions())


def test_check_refuses_what_the_trainer_refuses() -> None:
    write_rows("texts.jsonl", [{"text": "one"}, {"text": "two"}])
    with pytest.raises(InputError, match="--template: documents are no conversations"):
        check.run("texts.jsonl", CheckOptions(trainer="pretrain", template="chatml"))


def test_the_rows_are_drawn_by_the_seed_and_only_those_count_as_trained_on() -> None:
    a, b = numbered("a.jsonl", range(4)), numbered("b.jsonl", range(20))
    trained: list[set[int]] = []
    for seed in (0, 0, 1):
        output = f"out{len(trained)}"
        train(sft, [a, f"0.5*{b}"], output=output, seed=seed, **FAST)
        trained.append(read_trained(Path(output)))
    of_a, of_b = ({digest([{"role": "user", "content": f"Number {name} {i}?"}]) for i in range(20)} for name in (a, b))
    assert [(len(digests & of_a), len(digests & of_b)) for digests in trained] == [(4, 10)] * 3
    assert trained[0] == trained[1] != trained[2]


def test_weights_leave_the_held_out_side_alone() -> None:
    a, b = numbered("a.jsonl", range(30)), numbered("b.jsonl", range(30))
    held_out = {name: sum(is_held_out(f"Number {name} {i}?", 0.3) for i in range(30)) for name in (a, b)}
    result = train(sft, [f"3*{a}", f"0.1*{b}"], output="out", **FAST | {"held_out": 0.3})
    rest = {name: 30 - held for name, held in held_out.items()}
    assert counts(result) == (3 * rest[a] + round(0.1 * rest[b]), sum(held_out.values()), 60)


def test_a_prompt_in_two_files_is_on_one_side() -> None:
    write_rows("a.jsonl", [{"prompt": f"{i}?", "response": "yes"} for i in range(40)])
    write_rows("b.jsonl", [{"prompt": f"{i}?", "response": "no"} for i in range(40)])
    result = train(sft, ["a.jsonl", "2*b.jsonl"], output="out", **FAST | {"held_out": 0.3})
    held = sum(is_held_out(f"{i}?", 0.3) for i in range(40))
    assert counts(result) == (3 * (40 - held), 2 * held, 80)


def test_lines_that_cannot_be_read_name_their_file() -> None:
    a, b = numbered("a.jsonl", range(4)), numbered("b.jsonl", range(4))
    for name in (a, b):
        with Path(name).open("a") as file:
            file.write("no row\n")
    result = train(sft, [a, b], output="out", **FAST)
    lines = [json.loads(line) for line in Path("out/run/dropped.jsonl").read_text().splitlines()]
    assert [(line["source"], line["line"]) for line in lines] == [(a, 5), (b, 5)]
    assert (result["rows"]["read"], result["rows"]["unreadable"]) == (10, 2)


def test_files_and_weights_are_part_of_the_run() -> None:
    a, b = numbered("a.jsonl", range(4)), numbered("b.jsonl", range(4))
    identities = set()
    for data in (a, [a, b], [b, a], [a, f"2*{b}"], f"2*{a}"):
        with Sources(data) as sources:
            identities.add(sources.identity)
    assert len(identities) == 5
    train(sft, [a, b], output="out", **FAST)
    with pytest.raises(InputError, match="holds another run"):
        train(sft, [a, f"2*{b}"], output="out", **FAST)


def test_limit_is_of_each_file_and_the_output_is_named_after_all() -> None:
    a, b = numbered("a.jsonl", range(9)), numbered("b.jsonl", range(9))
    assert counts(train(sft, [a, f"2*{b}"], limit=3, **FAST)) == (3 + 6, 0, 6)
    assert Path("a+b.sft/config.json").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a.jsonl", "0*b.jsonl"], r"0\*b.jsonl: a weight is above 0"),
        (["a.jsonl", "-1*b.jsonl"], r"-1\*b.jsonl: a weight is above 0"),
        (["a.jsonl", "2*./a.jsonl"], r"./a.jsonl: is named twice; name it once, with a weight: '2\*./a.jsonl'"),
        (["a.jsonl", "0.5*missing.jsonl"], r"^missing.jsonl: no such file"),
        (["a.jsonl", "0.01*b.jsonl"], r"0.01\*b.jsonl: no row of 4 is drawn; raise the weight"),
        (["a.jsonl", "empty.jsonl"], r"empty.jsonl: no rows"),
    ],
)
def test_mistakes_are_one_line(data: list[str], message: str) -> None:
    numbered("a.jsonl", range(4))
    numbered("b.jsonl", range(4))
    Path("empty.jsonl").touch()
    with pytest.raises(InputError, match=message):
        train(sft, data, output="out", **FAST)


def test_a_file_whose_name_looks_like_a_weight_is_named_with_its_folder() -> None:
    assert [tuple(source) for source in parse_sources(["./2*a.jsonl", "2*a*b.jsonl"])] == [
        (1.0, "./2*a.jsonl"),
        (2.0, "a*b.jsonl"),
    ]


def test_a_folder_of_rows_takes_a_weight_and_is_not_written_into() -> None:
    Path("rows").mkdir()
    numbered("rows/one.jsonl", range(3))
    numbered("rows/two.jsonl", range(3))
    a = numbered("a.jsonl", range(2))
    assert counts(train(sft, [a, "2*rows"], output="out", **FAST)) == (2 + 12, 0, 8)
    with pytest.raises(InputError, match=r"lies in .*rows, all of which is read"):
        train(sft, [a, "2*rows"], output="rows/out", **FAST)


@pytest.mark.slow
def test_each_trainer_reads_several_files(taught: Path) -> None:
    common = {**FAST, "model": str(taught)}
    rows = [{"prompt": row.prompt, "response": row.response} for row in colour_rows()]
    pairs = [{"prompt": row["prompt"], "chosen": row["response"], "rejected": "none"} for row in rows]
    asking: dict[str, Any] = {"reward": ["rm"], "max_tokens": 4}
    write_rows("a.jsonl", [{"text": "Grass."}] * 3)
    write_rows("b.jsonl", [{"text": "Sky."}] * 3)
    data = ["a.jsonl", "2*b.jsonl"]
    assert train(pretrain, data, output="pre", **common)["rows"]["train"] == 9
    write_rows("a.jsonl", pairs[:3])
    write_rows("b.jsonl", pairs[3:])
    assert train(dpo, data, output="dpo", **common)["rows"]["train"] == 9
    assert train(reward, data, output="rm", **common)["rows"]["train"] == 9
    write_rows("a.jsonl", rows[:3])
    write_rows("b.jsonl", rows[3:])
    assert train(ppo, data, PpoOptions(**asking), output="ppo", **common)["rows"]["train"] == 9
    assert train(grpo, data, GrpoOptions(**asking), output="grpo", **common)["rows"]["train"] == 9
