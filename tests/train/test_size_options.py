"""The options of size and regularisation act where they may, and are refused where they cannot."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from datagen.errors import InputError
from datagen_train import dpo, reward, sft
from datagen_train.models import load
from datagen_train.models.load import dropout_fields
from datagen_train.options import DpoOptions, ModelOptions, PretrainOptions, RewardOptions, SftOptions, TrainOptions
from datagen_train.policy_options import DistillOptions, GrpoOptions, PpoOptions
from datagen_train.run.lengths import LengthGroups
from datagen_train.run.trl_adapter import Dpo, Sft
from tests.train.runs import metrics, train
from tests.train.tasks import problems, write_preferences, write_rows

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 5))
def test_every_row_comes_once_an_epoch_with_rows_of_its_length(lengths: list[int], size: int, epoch: int) -> None:
    groups = LengthGroups(lengths, size, seed=1)
    groups.set_epoch(epoch)
    order = list(groups)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(groups), "an epoch can be taken up again"
    batches = [[lengths[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    ranges = sorted((min(batch), max(batch)) for batch in batches)
    assert all(one[1] <= two[0] for one, two in pairwise(ranges)), "no two batches overlap"


def test_another_epoch_has_another_order() -> None:
    groups, orders = LengthGroups(range(1, 101), 4, seed=1), []
    for epoch in range(3):
        groups.set_epoch(epoch)
        orders.append(tuple(groups))
    assert len(set(orders)) == 3


def test_batches_of_equal_lengths_hold_less_padding(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "that is the sum, " * 12
    write_rows(
        "rows.jsonl", ({"prompt": p, "response": f"{a} {long * (i % 2)}"} for i, (p, a) in enumerate(problems(0)[:32]))
    )
    padded: list[int] = []
    forward = Sft.compute_loss

    def counted(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        padded.append(inputs["labels"].numel())
        return forward(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Sft, "compute_loss", counted)
    sizes = []
    for grouped in (False, True):
        padded.clear()
        options = SftOptions(group_by_length=grouped)
        train(sft, "rows.jsonl", options, model=base, output=f"out-{grouped}", epochs=1.0, batch_size=4, held_out=0)
        sizes.append(sum(padded))
    assert sizes[1] < 0.75 * sizes[0]


def gpt2(folder: str) -> Path:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=50, n_positions=16)).save_pretrained(folder)
    return Path(folder)


def test_dropout_reaches_every_dropout_of_the_model() -> None:
    path = gpt2("gpt2")
    assert set(dropout_fields(path)) == {"attn_pdrop", "embd_pdrop", "resid_pdrop"}
    model = load.load_model(path, ModelOptions(dropout=0.4))
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.4}
    assert model.config.summary_first_dropout == 0.1, "the dropout of a head that is not there"


def test_dropout_changes_what_is_learned(base: str, few: str) -> None:
    losses = []
    for rate in (None, 0.5):
        train(sft, few, model=base, output=f"out-{rate}", steps=2, dropout=rate, log_every=1, held_out=0)
        losses.append([line["loss"] for line in metrics(f"out-{rate}") if "loss" in line])
    assert losses[0][0] < losses[1][0], "attention that drops half of what it reads knows less"


def test_a_model_without_dropout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(InputError, match=r"--dropout: .* has no dropout"):
        dropout_fields(tmp_path)


def test_attention_is_that_of_the_option_also_under_a_score_head(base: str) -> None:
    write_preferences(Path("prefs.jsonl"), problems(0)[:40])
    seen = []

    class Seen(reward.RewardTrainer):
        def __init__(self, session: Any, *arguments: Any) -> None:
            seen.append({m.config._attn_implementation for m in session.loaded.model.modules() if hasattr(m, "config")})
            super().__init__(session, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "RewardTrainer", Seen)
        train(reward, "prefs.jsonl", model=base, output="out", steps=1, attention="eager")
    assert seen == [{"eager"}]


@pytest.mark.slow
def test_adafactor_learns(base: str, few: str) -> None:
    result = train(sft, few, model=base, output="out", optimizer="adafactor", steps=4, learning_rate=3e-3, eval_every=4)
    assert result["end"]["eval_loss"] < result["start"]["eval_loss"]


@pytest.mark.slow
def test_dpo_takes_the_optimiser(base: str) -> None:
    write_preferences(Path("prefs.jsonl"), problems(0)[:40])
    kinds = []

    class Seen(Dpo):
        def create_optimizer(self, *arguments: Any) -> Any:
            kinds.append(type(super().create_optimizer(*arguments)).__name__)
            return self.optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpo, "Dpo", Seen)
        train(dpo, "prefs.jsonl", model=base, output="out", steps=1, optimizer="adafactor")
    assert kinds[0] == "Adafactor"


OTHERS = [
    RewardOptions(),
    DpoOptions(),
    DistillOptions(teacher="t"),
    PpoOptions(reward=["r"]),
    GrpoOptions(reward=["r"]),
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: type(options).__name__)
def test_dropout_is_refused_where_two_passes_are_compared(options: Any) -> None:
    with pytest.raises(InputError, match=r"^--dropout: "):
        options.check(TrainOptions(model="base", dropout=0.1))
    options.check(TrainOptions(model="base", attention="eager", optimizer="adafactor"))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"attention": "eager"}, "--attention and --dropout act on a model that is loaded"),
    ({"dropout": 0.1}, "--attention and --dropout act on a model that is loaded"),
    ({"model": "base", "attention": "flash_attention_2"}, "pip install flash-attn"),
    ({"model": "base", "optimizer": "adamw_8bit"}, "pip install bitsandbytes"),
    ({"model": "base", "optimizer": "sgd"}, "--optimizer sgd: expected one of adamw"),
    ({"model": "base", "attention": "linear"}, "--attention linear: expected one of eager"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_act_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    for trainer in (SftOptions(), PretrainOptions()):
        with pytest.raises(InputError) as refused:
            trainer.check(TrainOptions(**options))
        assert says in str(refused.value)


def test_packing_leaves_nothing_to_group() -> None:
    with pytest.raises(InputError, match="--packing leaves no padding"):
        SftOptions(packing=True, group_by_length=True).check(TrainOptions())
