"""The reward model: comparisons, training, the position of the score, and the saved model."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from math import comb, log
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

from datagen.errors import InputError
from datagen.records.ranked import RANKED, Ranked
from datagen.records.reader import Reader
from datagen.records.record import BadLine
from datagen_train import reward as reward_model
from datagen_train import sft
from datagen_train.data.encode import Encoder
from datagen_train.data.rankings import Comparison, EncodedRanking, RankingEncoder, as_sequences
from datagen_train.errors import UnusableRow
from datagen_train.models.heads import score_head
from datagen_train.models.reward_model import TokenIds, close_answers, raw_scores, with_score_head
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import RewardOptions
from datagen_train.reward import LOSS_COLUMNS, collate, ranking_loss
from datagen_train.rewards.reward_model import load_reward
from datagen_train.run.reward_report import Comparisons, calibration, correlation, describe, interval, verdict, wins
from datagen_train.tools import evaluate, merge
from datagen_train.tools.options import EvalOptions, MergeOptions
from tests.once import SEEDS
from tests.train.conftest import make
from tests.train.runs import Notes, train
from tests.train.tasks import problems, write_sft

GOOD = ("good", "fair", "poor", "awful")
COMMON: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 8, "eval_every": 20, "save_every": 20}


def write_words(path: str, prompts: int = 160, first: int = 0) -> str:
    """Rank answers by one word, which an untrained model learns in seconds."""
    rows = []
    for number in range(first, first + prompts):
        chance = Random(number)
        words = chance.sample(GOOD, chance.choice((2, 3, 4)))
        ranks = [sorted(words, key=GOOD.index).index(word) + 1 for word in words]
        answers = [f"A {word} one{'.' * chance.randrange(1, 9)}" for word in words]
        rows.append({"prompt": f"What of {number}?", "responses": answers, "ranks": ranks, "source": f"s{number % 2}"})
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_sums(path: str, sums: Sequence[tuple[str, int]], seed: int) -> str:
    """Rank the right number before three wrong ones, which tie: 3 comparisons a prompt."""
    chance = Random(seed)
    rows = (
        {"prompt": p, "responses": [str(n), *map(str, chance.sample([x for x in range(19) if x != n], 3))],
         "ranks": [1, 2, 2, 2]}
        for p, n in sums
    )  # fmt: skip
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(*rows: dict[str, Any]) -> list[Any]:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return list(Reader("x.jsonl", io.BytesIO(data), RANKED).read())


def encoder(**options: Any) -> RankingEncoder:
    loaded = make()
    most = options.pop("max_length", 256)
    close_answers(loaded.tokenizer)
    return RankingEncoder(Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), most), **options)


def row(responses: Sequence[str], ranks: Sequence[int], **fields: Any) -> Ranked:
    return Ranked("0" * 16, "What of it?", tuple(responses), tuple(ranks), **fields)


def comparison_pairs(ranking: EncodedRanking) -> set[tuple[int, int]]:
    return {(c.better, c.worse) for c in ranking.comparisons}


# What is read


def test_every_shape_becomes_ranked_answers() -> None:
    (one,) = read({"prompt": "Hi", "responses": ["a", "b", "c"], "ranks": [2, 1, 2], "scores": [3, 9, 3]})
    assert (one.responses, one.ranks, one.scores) == (("a", "b", "c"), (2, 1, 2), (3.0, 9.0, 3.0))
    (one,) = read({"prompt": "Hi", "responses": ["a", "b", "c"], "scores": [3, None, 7.5]})
    assert one.ranks == (2, 3, 1)
    (one,) = read({"instruction": "Add", "input": "1 2", "output": ["3", "4", "5"]})
    assert (one.prompt, one.responses, one.ranks) == ("Add\n\n1 2", ("3", "4", "5"), (1, 2, 3))
    (one,) = read({"prompt": "Hi", "chosen": "yes", "rejected": "no", "margin": 2, "soft_label": 0.8})
    assert (one.responses, one.ranks, one.margin, one.soft_label) == (("yes", "no"), (1, 2), 2.0, 0.8)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "neither ranks nor scores"),
        ({"ranks": [1]}, '"ranks" holds 1 values for 2 responses'),
        ({"ranks": [0, 1]}, '"ranks" is not a list of whole numbers from 1'),
        ({"ranks": [1, True]}, '"ranks" is not a list of whole numbers from 1'),
        ({"scores": [1, "two"]}, '"scores" is not a list of numbers and nulls'),
        ({"responses": ["a"], "ranks": [1]}, "holds 1 of the two answers"),
    ],
)
def test_a_ranked_row_that_says_nothing_is_a_bad_line(fields: dict[str, Any], says: str) -> None:
    (bad,) = read({"prompt": "Hi", "responses": ["a", "b"], **fields})
    assert isinstance(bad, BadLine)
    assert says in bad.reason


def test_a_soft_label_is_a_probability() -> None:
    (bad,) = read({"prompt": "Hi", "chosen": "yes", "rejected": "no", "soft_label": 1.2})
    assert bad.reason == '"soft_label" is not a number from 0 to 1'


# What is compared


@given(st.lists(st.integers(1, 5), min_size=2, max_size=7))
def test_all_pairs_of_one_prompt_are_compared_the_right_way_round(ranks: list[int]) -> None:
    loaded = RankingEncoder(ENCODER.encoder, "soft")
    ranking = loaded.encode(row([f"answer {i}" for i in range(len(ranks))], ranks))
    assert len(ranking.comparisons) == comb(len(ranks), 2)
    for comparison in ranking.comparisons:
        assert comparison.target == (0.5 if ranks[comparison.better] == ranks[comparison.worse] else 1.0)
        assert ranks[comparison.better] <= ranks[comparison.worse]
    assert ranks[ranking.best] == min(ranks)


ENCODER = encoder()


def test_ties_are_skipped_and_a_prompt_of_ties_alone_is_dropped() -> None:
    assert comparison_pairs(ENCODER.encode(row("abc", (1, 2, 2)))) == {(0, 1), (0, 2)}
    with pytest.raises(UnusableRow, match="all answers tie"):
        ENCODER.encode(row("abc", (1, 1, 1)))


def test_answers_without_a_score_and_identical_ones_are_left_out_and_counted() -> None:
    ranking_encoder = encoder()
    ranking = ranking_encoder.encode(
        row(["a", "b", "a", "c", "Say <|im_end|>"], (1, 2, 3, 4, 5), scores=(9.0, 8.0, 7.0, None, 1))
    )
    assert len(ranking.answers) == 2
    assert ranking_encoder.left_out == {
        "no score": 1,
        "the same as another answer": 1,
        "a message holds a special token": 1,
    }
    with pytest.raises(UnusableRow, match="fewer than two different answers"):
        ranking_encoder.encode(row(["a", "a"], (1, 2)))


def test_margins_and_soft_labels_reach_the_comparison() -> None:
    (one,) = encoder(margin=0.5).encode(row("ab", (1, 2), margin=3.0)).comparisons
    assert one == Comparison(0, 1, 1.0, 1.5)
    (one,) = encoder(margin=0.5).encode(row("ab", (2, 1), scores=(2.0, 6.0))).comparisons
    assert one == Comparison(1, 0, 1.0, 2.0)
    (one,) = encoder().encode(row("ab", (1, 2), margin=3.0, soft_label=0.2)).comparisons
    assert one == Comparison(1, 0, 0.8, 0.0), "the second is the likelier one"


def test_every_answer_ends_in_the_token_that_it_is_scored_at_even_a_cut_one() -> None:
    ranking_encoder = encoder(max_length=40)
    ranking = ranking_encoder.encode(row(["short", "very long " * 40], (1, 2)))
    end = ranking_encoder.encoder.tokenizer.eos_token_id
    assert [int(ids[-1]) for ids in ranking.answers] == [end, end]
    assert [list(ids).count(end) for ids in ranking.answers] == [2, 2], "the user's turn, and the answer"
    assert (ranking.cut, len(ranking.answers[1])) == (True, 40)
    assert all(sequence.trained == 1 for sequence in as_sequences([ranking]))


# What is learned


def flat_loss(scores: torch.Tensor, rankings: list[list[int]]) -> torch.Tensor:
    """The same loss from pairs: each prompt has weight 1, shared by its pairs."""
    total, at = torch.zeros((), dtype=torch.float64), 0
    for ranks in rankings:
        pairs = [(i, j) for i, j in product(range(len(ranks)), repeat=2) if ranks[i] < ranks[j]]
        for i, j in pairs:
            difference = scores[at + i] - scores[at + j]
            total = total + torch.log1p(torch.exp(-difference)) / len(pairs)
        at += len(ranks)
    return total / len(rankings)


@given(st.lists(st.permutations(range(4)).flatmap(lambda p: st.just(list(p))), min_size=1, max_size=4), st.data())
def test_the_gradients_are_those_of_the_flat_pairs_with_their_weights(rankings: list[list[int]], data: Any) -> None:
    rankings = [ranks[: data.draw(st.integers(2, 4))] for ranks in rankings]
    answers = [np.array([1], dtype=np.int32)] * 4
    encoded = [
        EncodedRanking(
            tuple(answers[: len(ranks)]), (1,) * len(ranks),
            tuple(Comparison(i, j) if ranks[i] < ranks[j] else Comparison(j, i) for i, j in pairs_of(ranks)), 0, "",
        )
        for ranks in rankings
    ]  # fmt: skip
    batch = collate(encoded, pad_id=0)
    start = torch.linspace(-2, 3, sum(map(len, rankings)), dtype=torch.float64)
    ours, expected = start.clone().requires_grad_(), start.clone().requires_grad_()
    loss = ranking_loss(ours, **{name: in_double(batch[name]) for name in LOSS_COLUMNS})
    flat = flat_loss(expected, rankings)
    torch.autograd.backward([loss, flat])
    assert loss.item() == pytest.approx(flat.item(), rel=1e-6)
    assert ours.grad is not None
    assert expected.grad is not None
    assert torch.allclose(ours.grad, expected.grad, rtol=1e-6, atol=1e-9)


def in_double(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.is_floating_point() else values


def pairs_of(ranks: list[int]) -> Iterator[tuple[int, int]]:
    return combinations(range(len(ranks)), 2)


def of_two(difference: float, **columns: float) -> torch.Tensor:
    scores = torch.tensor([difference, 0.0], requires_grad=True)
    values = {"weight": 1.0, "target": 1.0, "margin": 0.0, **columns}
    loss = ranking_loss(
        scores, torch.tensor([0]), torch.tensor([1]), **{name: torch.tensor([value]) for name, value in values.items()}
    )
    torch.autograd.backward([loss])
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    return loss.detach()


def test_the_loss_stays_a_number_where_a_sigmoid_is_0() -> None:
    assert of_two(-500.0).item() == pytest.approx(500.0)
    assert of_two(500.0).item() == pytest.approx(0.0, abs=1e-6)


def test_margin_and_soft_label_act_as_they_are_defined() -> None:
    assert of_two(3.0, margin=3.0).item() == pytest.approx(log(2))
    assert of_two(0.0, target=0.5).item() == pytest.approx(log(2))
    x = 1.3
    expected = -0.8 * log(1 / (1 + np.exp(-x))) - 0.2 * log(1 / (1 + np.exp(x)))
    assert of_two(x, target=0.8).item() == pytest.approx(expected, rel=1e-5)


# The model


def test_the_head_is_drawn_with_the_papers_deviation_and_the_trunk_is_the_models_own() -> None:
    assert score_head(4095, 0).weight.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert score_head(4095, 0).bias is None
    loaded = make()
    before = {name: value.clone() for name, value in loaded.model.model.state_dict().items()}
    scorer: Any = with_score_head(loaded.model, seed=1)
    assert scorer.model is loaded.model.model
    assert all(torch.equal(value, before[name]) for name, value in scorer.model.state_dict().items())
    assert torch.equal(scorer.score.weight, score_head(64, 1).weight)


def test_dropout_is_off_while_training() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        attention_dropout=0.5, pad_token_id=0,
    )  # fmt: skip
    scorer: Any = with_score_head(LlamaForCausalLM(config), seed=0).train()
    ids = torch.randint(1, 64, (4, 12))
    assert torch.equal(scorer(ids).logits, scorer(ids).logits)


def sequences(count: int) -> list[TokenIds]:
    chance = np.random.default_rng(0)
    return [chance.integers(4, 200, size=chance.integers(3, 60)).astype(np.int32) for _ in range(count)]


def test_a_score_is_the_same_alone_and_beside_longer_ones() -> None:
    scorer = with_score_head(make().model, seed=0)
    many = sequences(20)
    alone = raw_scores(scorer, many, pad_id=0, batch_size=1)
    together = raw_scores(scorer, many, pad_id=0, batch_size=20)
    assert np.allclose(alone, together, rtol=1e-4, atol=1e-5)
    assert alone.std() > 0.1


# What is said of it


def comparisons(differences: Sequence[float], longer: Sequence[float], prompts: Sequence[int]) -> Comparisons:
    return Comparisons(
        np.array(differences, dtype=float), np.array(longer, dtype=float), np.array(prompts, dtype=float)
    )


def test_the_interval_is_wider_where_the_comparisons_come_from_few_prompts() -> None:
    right = [1.0] * 60 + [-1.0] * 40
    many = interval(comparisons(right, right, range(100)), 0)
    few = interval(comparisons(right, right, [i // 10 for i in range(100)]), 0)
    assert many == pytest.approx((0.5, 0.7), abs=0.03)
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_calibration_tells_a_sure_model_from_a_right_one() -> None:
    sure = comparisons([6.0] * 50 + [-6.0] * 50, [0] * 100, range(100))
    error, bins = calibration(sure)
    assert error == pytest.approx(0.4975, abs=1e-3)
    assert bins == [{"from": 0.9, "count": 100, "confidence": pytest.approx(0.9975, abs=1e-3), "accuracy": 0.5}]
    assert calibration(comparisons([log(3)] * 75 + [-log(3)] * 25, [0] * 100, range(100)))[0] == pytest.approx(
        0, abs=1e-9
    )


def test_length_alone_is_reported_beside_the_accuracy() -> None:
    assert wins(comparisons([0] * 4, [3, -1, 0, 2], range(4)).longer).mean() == 0.625
    assert correlation([1, 2, 3], [1, 1, 1]) is None
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)


def test_a_model_that_only_counts_words_is_not_good_enough() -> None:
    metrics = {"comparisons": 400, "accuracy": 0.71, "interval": (0.66, 0.75), "longer_wins": 0.7}
    assert verdict(metrics).startswith("Not good enough for PPO: no better than length alone")
    assert verdict(metrics | {"longer_wins": 0.3}).startswith("Not good enough"), "shorter wins is a rule as well"
    assert verdict(metrics | {"longer_wins": 0.5}).startswith("Good enough for PPO")
    assert verdict(metrics | {"accuracy": 0.6, "interval": (0.55, 0.65), "longer_wins": 0.5}).startswith(
        "Not good enough"
    )
    assert "Unknown" in verdict(metrics | {"comparisons": 20})


def test_a_report_counts_sources_and_leaves_ties_out() -> None:
    rankings = [
        encoder(ties="soft").encode(row("abc", (1, 2, 2), extra={"source": name})) for name in ("web", "web", "sim")
    ]
    metrics = describe(rankings, np.array([1.0, 0, 0, 1, 0, 2, 0, 1, 1]), seed=0)
    assert (metrics["prompts"], metrics["comparisons"]) == (3, 6)
    assert metrics["by_source"] == {
        "sim": {"comparisons": 2, "accuracy": 0},
        "web": {"comparisons": 4, "accuracy": 0.75},
    }
    assert metrics["accuracy"] == 0.5


# Whole runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A reward model trained from scratch on which word is good."""
    folder = tmp_path_factory.mktemp("reward")
    data = write_words(str(folder / "words.jsonl"))
    notes = Notes()
    result = train(reward_model, data, notes=notes, output=str(folder / "rm"), steps=60, held_out=0.3, **COMMON)
    return folder, result | {"messages": notes.messages}


def test_it_learns_from_an_untrained_start_and_says_how_well(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, result = trained
    assert abs(result["start"]["eval_loss"] - log(2)) < 0.1
    assert result["checks"]["untrained"].startswith("as it should be")
    assert result["end"]["eval_accuracy"] >= 0.9
    reward = result["reward"]
    assert reward["accuracy"] == result["end"]["eval_accuracy"]
    assert set(reward["by_source"]) == {"s0", "s1"}
    assert reward["interval"][0] <= reward["accuracy"] <= reward["interval"][1]
    card = (folder / "rm/README.md").read_text()
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == "text-classification"
    assert "Good enough for PPO" in card
    assert "always takes the longer answer" in card
    assert json.loads((folder / "rm/reward.json").read_text())["held_out_accuracy"] == reward["accuracy"]


def test_the_best_training_answers_have_mean_0_and_spread_1(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    from datagen_train.data.split import is_held_out

    rows = [json.loads(line) for line in (folder / "words.jsonl").read_text().splitlines()]
    rows = [ranked for ranked in rows if not is_held_out(ranked["prompt"], 0.3)]
    best = [ranked["responses"][ranked["ranks"].index(1)] for ranked in rows]
    scores = load_reward(folder / "rm").score([ranked["prompt"] for ranked in rows], best)
    assert np.mean(scores) == pytest.approx(0, abs=1e-4)
    assert np.std(scores) == pytest.approx(1, abs=1e-4)


def test_transformers_alone_gives_the_same_scores_but_for_the_constant_of_the_card(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    """As RewardBench, TRL and cards do it: the chat template, padded in a batch, the logit; and as our card says."""
    folder = trained[0] / "rm"
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = ["A fair one.", "An awful one, and a long one at that.", "A good one."]
    talks = [[{"role": "user", "content": "What of 7?"}, {"role": "assistant", "content": text}] for text in answers]
    inputs = tokenizer.apply_chat_template(talks, padding=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[:, 0].tolist()
        judged = pipeline("text-classification", model=model, tokenizer=tokenizer, function_to_apply="none")
        alone = [
            one["score"] for one in judged([tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks])
        ]
    reward = load_reward(folder)
    expected = reward.raw(["What of 7?"] * 3, answers)
    assert reward.score(["What of 7?"] * 3, answers) == [logit + reward.contract.bias for logit in expected]
    assert logits == pytest.approx(expected, abs=1e-5)
    assert alone == pytest.approx(expected, abs=1e-5)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code
    ran = subprocess.run([sys.executable, "-c", code[1]], cwd=folder, capture_output=True, text=True, timeout=300)
    assert float(ran.stdout) == pytest.approx(float(code[1].rpartition("# ")[2]), abs=1e-4), ran.stderr


def test_a_short_limit_leaves_the_example_out_of_the_card_and_ends_well() -> None:
    rows = [{"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2]}] * 4
    Path("short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(reward_model, "short.jsonl", output="rm", steps=1, held_out=0, max_length=26)
    assert "```python" not in Path("rm/README.md").read_text()
    assert load_reward("rm").score(["a"], ["b"])


def test_scores_do_not_depend_on_the_batch_and_rank_as_was_learned(trained: tuple[Path, dict[str, Any]]) -> None:
    reward = load_reward(trained[0] / "rm")
    prompts = [f"What of {n}?" for n in range(400, 440)]
    answers = [f"A {GOOD[n % 4]} one{'.' * (n % 9)}" for n in range(40)]
    one, many = reward.score(prompts, answers, batch_size=1), reward.score(prompts, answers, batch_size=40)
    assert np.allclose(one, many, rtol=1e-4, atol=1e-4)
    means = [np.mean(many[i::4]) for i in range(4)]
    assert means == sorted(means, reverse=True)


def test_special_tokens_in_an_answer_neither_end_it_nor_stop_the_run(trained: tuple[Path, dict[str, Any]]) -> None:
    reward = load_reward(trained[0] / "rm")
    plain, spiked, nested = reward.score(
        ["What of 7?"] * 3,
        ["A fair one.", "A fair<|im_end|> one.<|im_start|>", "A fair<|im_<|im_end|>end|> one."],
    )
    assert [spiked, nested] == pytest.approx([plain, plain], abs=1e-5)
    assert len(reward.score(["What of 7?"], [""])) == 1
    with pytest.raises(InputError, match=r"prompt 2 .* cannot be scored: a message holds a special token"):
        reward.score(["Hi", "Say <|im_end|>"], ["a", "b"])


def copy_of(trained: tuple[Path, dict[str, Any]], name: str) -> Path:
    return Path(copytree(trained[0] / "rm", Path(name)))


def test_a_folder_that_breaks_its_contract_is_refused_in_one_line(trained: tuple[Path, dict[str, Any]]) -> None:
    folder = copy_of(trained, "no-contract")
    (folder / "reward.json").unlink()
    with pytest.raises(InputError, match=r"holds no reward\.json.*datagen train reward"):
        load_reward(folder)
    folder = copy_of(trained, "other-template")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    with pytest.raises(InputError, match="its template is not the one it was trained with"):
        load_reward(folder)
    folder = copy_of(trained, "other-tokenizer")
    make().tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="its tokenizer is not the one it was trained with"):
        load_reward(folder)
    folder = copy_of(trained, "no-head")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "score" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights are missing, such as score\.weight"):
        load_reward(folder)
    folder = copy_of(trained, "other-version")
    contract = json.loads((folder / "reward.json").read_text())
    (folder / "reward.json").write_text(json.dumps(contract | {"version": 1}))
    with pytest.raises(InputError, match="another version"):
        load_reward(folder)
    (folder / "reward.json").write_text("{}")
    with pytest.raises(InputError, match="train the reward model again"):
        load_reward(folder)


def test_eval_measures_it_on_other_rankings(trained: tuple[Path, dict[str, Any]]) -> None:
    metrics = evaluate.run(str(trained[0] / "rm"), write_words("other.jsonl", 60, first=1000), EvalOptions())
    assert metrics["rows"] == metrics["prompts"] == 60
    assert metrics["accuracy"] >= 0.85


def test_each_answer_goes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 forwards for 6 comparisons, where pairs would take 12."""
    rows = [{"prompt": f"What of {n}?", "responses": list("abcd"), "ranks": [1, 2, 3, 4]} for n in range(40)]
    Path("four.jsonl").write_text("".join(json.dumps(ranked) + "\n" for ranked in rows))
    seen: list[int] = []
    honest = with_score_head

    def counted(*args: Any, **kwargs: Any) -> Any:
        model: Any = honest(*args, **kwargs)
        hook = lambda module, _, output: seen.append(output.shape[0]) if torch.is_grad_enabled() else None  # noqa: E731
        model.score.register_forward_hook(hook)
        return model

    monkeypatch.setattr(reward_model, "with_score_head", counted)
    train(reward_model, "four.jsonl", output="rm", steps=3, batch_size=8, held_out=0)
    assert seen == [8 * 4] * 3


def test_adapters_keep_the_head_and_merge_into_the_same_scores() -> None:
    write_sft(Path("few.jsonl"), problems(0)[:100])
    train(sft, "few.jsonl", output="base", steps=4)
    base = Path("base/model.safetensors").read_bytes()
    data = write_words("words.jsonl")
    result = train(reward_model, data, model="base", lora=True, output="adapters", steps=40, held_out=0.3, **COMMON)
    assert Path("base/model.safetensors").read_bytes() == base
    saved = load_file("adapters/adapter_model.safetensors")
    (head,) = [value for name, value in saved.items() if "score" in name]
    assert not torch.allclose(head, score_head(64, 0).weight), "the head was trained, and that one was saved"
    reward = load_reward("adapters")
    prompts, answers = ["What of 1?"] * 4, [f"A {word} one." for word in GOOD]
    before = reward.score(prompts, answers)
    metrics = describe_again("adapters", data)
    assert metrics["accuracy"] == result["reward"]["accuracy"], "loaded, it is what was measured after training"
    merge.run("adapters", MergeOptions(output="whole"))
    assert load_reward("whole").score(prompts, answers) == pytest.approx(before, abs=1e-3)
    train(sft, "few.jsonl", output="base", steps=5, overwrite=True)
    with pytest.raises(InputError, match="its base base is not the model that it was trained on"):
        load_reward("adapters")
    with pytest.raises(InputError, match="no LoRA adapter"):
        merge.run("whole", MergeOptions(output="again"))


def describe_again(folder: str, data: str) -> dict[str, Any]:
    return evaluate.run(folder, data, EvalOptions(held_out=0.3))


def test_frozen_layers_leave_the_head_trained() -> None:
    write_sft(Path("few.jsonl"), problems(0)[:100])
    train(sft, "few.jsonl", output="base", steps=4)
    train(reward_model, write_words("words.jsonl"), model="base", train_last=1, output="rm", steps=3)
    before, after = load_file("base/model.safetensors"), load_file("rm/model.safetensors")
    assert not torch.allclose(after["score.weight"], score_head(64, 0).weight)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    data = write_words("words.jsonl", 80)
    options: dict[str, Any] = {"steps": 3, "batch_size": 8, "eval_every": 100, "save_every": 100, "held_out": 0.1}
    options["log_every"] = 1
    in_one = train(reward_model, data, output="whole", **options)
    parts = train(reward_model, data, output="parts", accumulate=4, **options)
    assert parts["end"]["eval_loss"] == pytest.approx(in_one["end"]["eval_loss"], rel=1e-3)
    assert norms("parts") == pytest.approx(norms("whole"), rel=1e-3)


def norms(folder: str) -> list[float]:
    """Return the gradient norms; Adam would hide a factor in the loss."""
    lines = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    return [line["grad_norm"] for line in lines if "grad_norm" in line]


def test_reference_answers_of_a_file_get_mean_0() -> None:
    data = write_words("words.jsonl", 60)
    rows = [{"prompt": f"What of {n}?", "response": f"A poor one{'.' * (n % 5)}"} for n in range(30)]
    Path("references.jsonl").write_text("".join(json.dumps(ranked) + "\n" for ranked in rows))
    settings = RewardOptions(reference="references.jsonl")
    result = train(reward_model, data, settings, output="rm", steps=4, held_out=0.2)
    assert result["reward"]["references"] == 30
    scores = load_reward("rm").score([ranked["prompt"] for ranked in rows], [ranked["response"] for ranked in rows])
    assert np.mean(scores) == pytest.approx(0, abs=1e-4)


def test_a_start_that_is_no_start_is_reported(base_rm: Path) -> None:
    notes = Notes()
    with pytest.raises(InputError, match="is a reward model; start from the SFT model"):
        train(reward_model, write_words("words.jsonl"), model=str(base_rm), output="again", steps=2)
    session: Any = type("S", (), {"findings": {}, "terminal": notes})()
    start = {"eval_loss": 0.1, "eval_accuracy": 0.97}
    reward_model.check_start(start, session, RewardOptions(), prompts=100)
    assert session.findings["untrained"].startswith("unusual")
    assert "warning" in notes.messages[-1]


@pytest.fixture
def base_rm(trained: tuple[Path, dict[str, Any]]) -> Path:
    return trained[0] / "rm"


@pytest.mark.parametrize(
    ("options", "settings", "says"),
    [
        ({"generate": 5}, {}, "answers nothing"),
        ({"lora_dropout": 0.1}, {}, "without dropout"),
        ({}, {"ties": "maybe"}, "--ties maybe: expected one of skip, soft"),
        ({}, {"reference": "none.jsonl"}, "none.jsonl"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(options: Any, settings: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(reward_model, write_words("words.jsonl", 30), RewardOptions(**settings), output="rm", **options)


def test_all_answers_of_a_prompt_are_on_one_side() -> None:
    rows = [{"prompt": f"What of {n % 30}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(120)]
    Path("pairs.jsonl").write_text("".join(json.dumps(ranked) + "\n" for ranked in rows))
    counts = train(reward_model, "pairs.jsonl", output="rm", steps=2, held_out=0.3)["rows"]
    assert counts["train"] + counts["held_out"] == 120
    assert counts["held_out"] % 4 == 0 and counts["held_out"] > 0


# Slow: what was promised


def accuracy_from_sft(seed: int) -> float:
    """Return the accuracy of right against wrong numbers after 400 steps from an SFT model that can add."""
    write_sft(Path("sums.jsonl"), problems(0)[:4200])
    train(sft, "sums.jsonl", output=f"sft-{seed}", seed=seed, steps=600, eval_every=600)
    data = write_sums("ranked.jsonl", problems(1)[:2700], seed)
    result = train(
        reward_model, data, model=f"sft-{seed}", output=f"rm-{seed}", seed=seed, steps=400, held_out=0.1,
        learning_rate=3e-3,
    )  # fmt: skip
    return float(result["reward"]["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_it_tells_right_sums_from_wrong_ones(seed: int) -> None:
    accuracy = accuracy_from_sft(seed)
    print(f"reward model, held-out accuracy, seed {seed}: {accuracy:.3f}")
    assert accuracy >= 0.8, "of 0.88 to 1.00 here; the arithmetic of another processor ends elsewhere"
