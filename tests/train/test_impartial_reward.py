"""No judge of the policy's own model family is a reward, unless that is asked for."""

import json
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.records.files import dump_line
from datagen.records.layout import pack_meta
from datagen_train import grpo, ppo
from datagen_train.policy_options import GrpoOptions, PpoOptions
from datagen_train.run.impartial import policy_families, refuse_partial_judges
from datagen_train.tools import evaluate
from datagen_train.tools.options import EvalOptions, ScoreOptions
from datagen_train.tools.score import OPEN_REWARDS, RewardRanking
from tests.jobs import perform, rows
from tests.judge.rows import answers_by_label
from tests.server import Message, Server, running
from tests.train.runs import train


def folder(name: str, model_type: str, **files: object) -> str:
    """Make a folder of a model of which only the names are looked at."""
    for path, value in {"config.json": {"model_type": model_type}, **files}.items():
        file = Path(name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    return name


def trained(name: str, origin: str, model_type: str = "llama") -> str:
    return folder(name, model_type, **{"run/report.json": {"run": {"model": origin}}})


def test_the_family_of_a_policy_is_that_of_its_origin() -> None:
    qwen = folder("Qwen2.5-0.5B", "qwen2")
    assert policy_families(qwen) == policy_families("Qwen/Qwen2.5-0.5B") == {"Alibaba"}
    assert policy_families(folder("mine", "gemma2")) == {"Google"}
    assert policy_families(trained("sft", qwen)) == policy_families(trained("ppo", "sft")) == {"Alibaba"}
    assert policy_families(trained("claude-data", "Qwen/Qwen3-8B")) == {"Alibaba"}, "names of our own say nothing"
    adapter = folder("lora", "", **{"adapter_config.json": {"base_model_name_or_path": qwen}})
    assert policy_families(adapter) == {"Alibaba"}


def test_a_toy_and_a_model_of_which_nothing_is_known_have_no_family(base: str) -> None:
    assert json.loads(Path(base, "config.json").read_text())["model_type"] == "llama"
    assert policy_families("tiny") == policy_families(base) == policy_families(trained("sft", "tiny:2x64")) == set()
    assert policy_families(folder("mine", "unheard-of")) == set()
    trained("sft", "sft")
    assert policy_families("sft") == set(), "a circle ends"
    refuse_partial_judges(["judge:llama-3@http://127.0.0.1:1/v1"], base, allow_self=False)


def points(model: str, messages: list[Message], sample: int, task: str) -> str:
    return "\n".join(f"{label} helpful: 3" for label in answers_by_label(messages))


@pytest.fixture
def qwen(base: str) -> str:
    """A model that runs, under the name of one of a vendor."""
    copytree(base, "qwen2-small", ignore=ignore_patterns("run"))
    return "qwen2-small"


SHORT: dict[str, Any] = {"steps": 1, "batch_size": 4, "held_out": 0.0, "limit": 8}


@pytest.mark.parametrize(("trainer", "options"), [(ppo, PpoOptions), (grpo, GrpoOptions)])
def test_training_is_refused_before_the_first_call(trainer: Any, options: Any, qwen: str, few: str) -> None:
    with running(Server(answer=points)) as server:
        rewards = [f"0.5*judge:honest=qwen3@{server.url}"]
        with pytest.raises(InputError, match=r"judge:qwen3: would judge answers of its own model family.*--allow-self"):
            train(trainer, few, options(reward=rewards), model=qwen, output="out", **SHORT)
        assert server.requests == 0 and not Path("out").exists()


def test_what_is_allowed_is_trained_with(qwen: str, few: str) -> None:
    with running(Server(answer=points)) as server:
        for name, judge, allow_self in (("own", "qwen3", True), ("other", "gpt-4o", False)):
            options = PpoOptions(reward=[f"judge:{judge}@{server.url}"], max_tokens=4, allow_self=allow_self)
            assert train(ppo, few, options, model=qwen, output=name, **SHORT)["steps"] == 1
        assert server.requests > 0


def test_the_policy_itself_is_no_judge_of_its_answers(base: str) -> None:
    copytree(base, "copy")
    for judge in (base, "copy"):
        with pytest.raises(InputError, match="its own model family"):
            refuse_partial_judges([f"judge:hf:{judge}"], base, allow_self=False)
        refuse_partial_judges([f"judge:hf:{judge}"], base, allow_self=True)


def test_eval_refuses_what_training_refuses(qwen: str, few: str) -> None:
    options = EvalOptions(reward=["judge:qwen3@http://127.0.0.1:1/v1"])
    with pytest.raises(InputError, match="its own model family"):
        evaluate.run(qwen, few, options)


def test_score_leaves_out_the_rows_of_authors_of_the_judges_family() -> None:
    def row(n: int, author: str) -> bytes:
        meta = pack_meta({"responses": [{"model": author}, {"model": "gpt-4o"}]})
        return dump_line({"id": f"{n:016x}", "prompt": f"Say {n}.", "responses": ["a", "b"], "meta": meta})

    Path("samples.jsonl").write_bytes(b"".join(map(row, range(4), ["qwen2", "gemma", "qwq", "phi"])))
    with running(Server(answer=points)) as server, OPEN_REWARDS:
        reward = [f"judge:qwen3@{server.url}"]
        for name, allow_self, kept in (("some", False, 2), ("all", True, 4)):
            options = ScoreOptions(reward=reward, allow_self=allow_self)
            perform(RewardRanking, Path("samples.jsonl"), [], f"{name}.jsonl", options)
            assert len(rows(f"{name}.jsonl")) == kept
    assert {row["reason"] for row in rows("some.rejected.jsonl")} == {"no_impartial_judge"}
