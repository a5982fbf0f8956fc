"""Magpie with a real model: the template up to the user's turn, and the generated turn."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from datagen.engine.job import Outcome
from datagen.generators.magpie import Magpie, Options
from datagen.llm.local.generation import open_model
from datagen.llm.local.model import TURN, Local
from datagen.records.record import Messages
from tests.jobs import digest, perform, rows
from tests.once import once
from tests.train.conftest import COLOURS, colour_rows, make, save

if TYPE_CHECKING:
    from datagen_train.models.load import Loaded

USER = {"role": "user", "content": ""}


def teach_both_sides(loaded: "Loaded", steps: int) -> None:
    """Train on whole conversations, user turns included."""
    texts = [
        loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.response}], tokenize=False
        )
        for row in colour_rows()
    ]
    encoded = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    wide = max(map(len, encoded))
    ids = torch.tensor([row_ids + [0] * (wide - len(row_ids)) for row_ids in encoded])
    labels = torch.tensor([row_ids + [-100] * (wide - len(row_ids)) for row_ids in encoded])
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=6e-3)
    loaded.model.train()
    for _ in range(steps):
        loaded.model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.model.eval()


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned both user turns and answers."""
    return once(tmp_path_factory, "aligned", align)


def align(folder: Path) -> None:
    loaded = make()
    teach_both_sides(loaded, 80)
    save(loaded, folder)


def run(folder: Path, output: str = "out.jsonl", *, options: dict[str, Any] | None = None, **settings: Any) -> Outcome:
    magpie_options = Options(**{"dedup": 1.0, **(options or {})})
    return perform(Magpie, None, f"hf:{folder}", output, magpie_options, **{"n": 5, "timeout": 600.0, **settings})


def test_an_aligned_model_asks_what_users_ask_and_answers_it(aligned: Path) -> None:
    outcome = run(aligned, n=len(COLOURS))
    known = {str(row.prompt): row.response for row in colour_rows()}
    output = {row["prompt"]: row["response"] for row in rows("out.jsonl")}
    right = sum(known.get(prompt) == response for prompt, response in output.items())
    assert outcome.status == "finished"
    assert right >= len(COLOURS) - 2, output  # it is sampled hot: a turn may be a mixture of two


def test_rows_do_not_depend_on_concurrency_and_grow(aligned: Path) -> None:
    for concurrency in ("1", "32"):
        run(aligned, f"{concurrency}/out.jsonl", concurrency=concurrency)
    run(aligned, "grown/out.jsonl", n=2)
    run(aligned, "grown/out.jsonl")
    assert digest("1/out.jsonl") == digest("32/out.jsonl") == digest("grown/out.jsonl")


def test_a_model_that_only_babbles_makes_no_rows(fresh: Path) -> None:
    outcome = run(fresh, n=1, max_tokens=16)
    funnel = outcome.result["funnel"]
    assert (outcome.status, funnel["kept"]) == ("short", 0)
    assert ("truncated", "turn") in {(row["reason"], row["stage"]) for row in rows("out.rejected.jsonl")}


@pytest.mark.parametrize(
    "before",
    [
        [],
        [{"role": "system", "content": "Be brief."}],
        [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "blue"}],
    ],
    ids=["first", "steered", "later"],
)
def test_a_model_is_given_its_template_up_to_where_the_user_speaks(before: Messages, aligned: Path) -> None:
    local, (_, tokenizer) = Local(f"hf:{aligned}"), open_model(aligned)
    conversation = tokenizer.apply_chat_template([*before, {"role": "user", "content": "Sea?"}], tokenize=False)
    prefix = tokenizer.decode(local._encode([*before, USER]))
    assert conversation.startswith(prefix) and conversation.removeprefix(prefix).startswith("Sea?")


def test_a_template_that_changes_the_users_words_is_refused(fresh: Path, copied: Callable[[Path], Path]) -> None:
    loud = copied(fresh)
    (loud / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    assert TURN.upper() != TURN
    outcome = run(loud, max_failed=0)
    assert outcome.result["funnel"]["failed"] == {"refused (HTTP 400)": 1}
    assert "does not leave the user's words as they are" in Path("out.rejected.jsonl").read_text()
