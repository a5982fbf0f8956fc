"""Distillation: the divergence is that of the paper, the student comes near to the teacher, and refusals are clear."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.distributions import Categorical, kl_divergence
from transformers import PreTrainedModel
from trl import DistillationConfig, DistillationTrainer

from datagen.errors import InputError
from datagen.llm.local.generation import open_model
from datagen_train import distill
from datagen_train.distill import answer_logits, answer_means, divergence
from datagen_train.models.actor_critic import make_batch
from datagen_train.policy_options import DistillOptions
from tests.train.conftest import colour_rows
from tests.train.runs import Notes, metrics, train, train_line
from tests.train.tasks import problems, write_rows, write_sft

BETAS = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
ROWS = colour_rows()


def logits(seed: int, scale: float = 3.0) -> torch.Tensor:
    """Return random logits of 2 answers with 5 tokens of a vocabulary of 7."""
    return scale * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), BETAS)
def test_the_divergence_is_that_of_the_paper(seed: int, beta: float) -> None:
    """Equation 1, from distributions; by name the ends are the two Kullback-Leibler divergences."""
    q, p = (Categorical(logits=logits(s)) for s in (seed, seed + 1))
    mixture = Categorical(probs=beta * p.probs + (1 - beta) * q.probs)
    general = beta * kl_divergence(p, mixture) + (1 - beta) * kl_divergence(q, mixture)
    expected = {0.0: kl_divergence(p, q), 1.0: kl_divergence(q, p)}.get(beta, general)
    torch.testing.assert_close(divergence(logits(seed), logits(seed + 1), beta), expected)


@given(st.integers(0, 10_000), BETAS)
def test_a_student_that_is_its_teacher_has_no_divergence(seed: int, beta: float) -> None:
    same, other = logits(seed), logits(seed + 1)
    torch.testing.assert_close(divergence(same, same + 2.5, beta), torch.zeros(2, 5, dtype=torch.float64))
    assert (divergence(same, other, beta) > 0).all()


@given(st.integers(0, 10_000), BETAS)
def test_rows_of_the_embedding_without_a_token_are_not_compared(seed: int, beta: float) -> None:
    """Sizes of one family have one tokenizer, and embeddings of different lengths."""
    student, teacher = logits(seed), logits(seed + 1)
    unused = torch.full((2, 5, 3), 50.0, dtype=torch.float64)
    expected = divergence(student, teacher, beta)
    torch.testing.assert_close(divergence(student, torch.cat([teacher, unused], -1), beta), expected)
    torch.testing.assert_close(divergence(torch.cat([student, unused], -1), teacher, beta), expected)


def test_an_answer_counts_by_its_mean_over_its_own_tokens() -> None:
    values = torch.tensor([[1.0, 3.0, float("nan")], [6.0, float("nan"), float("nan")]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert answer_means(values, mask).tolist() == [2.0, 6.0]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_trl(base: str, teacher: str, beta: float) -> None:
    """On answers of equal length, where TRL's mean over all tokens is the mean over answers."""
    student, tokenizer = open_model(Path(base))
    other: PreTrainedModel = open_model(Path(teacher))[0]
    prompts, answers = [[5, 6, 7], [8, 9]], [[10, 11, 12, 2], [13, 14, 15, 2]]
    batch = make_batch(prompts, answers, student.device)
    arguments: Any = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none"}
    trainer: Any = DistillationTrainer(
        model=student,
        teacher_model=other,
        args=DistillationConfig(output_dir="trl", beta=beta, temperature=0.7, **arguments),
        train_dataset=Dataset.from_dict({"prompt": ["a"]}),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    parts = {"prompt_ids": batch.ids[:, :3], "prompt_mask": batch.attention[:, :3]}
    theirs = trainer.compute_loss(student, {**parts, "completion_ids": batch.answer, "completion_mask": batch.mask})
    of_student, of_teacher = (answer_logits(model, batch, 0.7) for model in (student, other))
    ours = answer_means(divergence(of_student, of_teacher, beta), batch.mask).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def prompts(*, answered: bool = False) -> str:
    write_rows("rows.jsonl", ({"prompt": r.prompt, **({"response": r.response} if answered else {})} for r in ROWS))
    return "rows.jsonl"


def learn(fresh: Path, taught: Path, on_policy: float, **options: Any) -> dict[str, Any]:
    """Distil a model that knows the colours into one that knows nothing; measure on the prompts of training."""
    data, chosen = prompts(answered=on_policy < 1), DistillOptions(
        teacher=str(taught), beta=0.0, on_policy=on_policy, max_tokens=6
    )  # fmt: skip
    return train(
        distill, data, chosen, options.pop("notes", None), model=str(fresh), output="student", steps=60, batch_size=6,
        learning_rate=5e-3, eval_data=data, generate=6, eval_every=30, **options,
    )  # fmt: skip


@pytest.mark.parametrize("on_policy", [*(pytest.param(share, marks=pytest.mark.slow) for share in (0.0, 0.5)), 1.0])
def test_a_student_comes_to_answer_as_its_teacher(fresh: Path, taught: Path, on_policy: float) -> None:
    notes = Notes()
    result = learn(fresh, taught, on_policy, notes=notes)
    assert result["start"]["eval_exact_match"] == 0
    assert result["end"]["eval_exact_match"] == 1, "the rows of on-policy distillation have no responses to copy"
    assert result["end"]["eval_loss"] < 0.1 * result["start"]["eval_loss"]
    assert result["learned"]
    assert ("sampling" in notes.phases) == (on_policy > 0)
    assert "Distilled from the teacher" in Path("student/README.md").read_text()


def losses(folder: str) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in metrics(folder) if "loss" in line]


def test_accumulated_parts_give_the_gradient_of_the_whole(base: str, teacher: str, few: str) -> None:
    """The same sampled answers, in one batch or in four."""
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "log_every": 1, "held_out": 0, "model": base}
    for name, parts in (("whole", 1), ("parts", 4)):
        train(distill, few, DistillOptions(teacher=teacher, max_tokens=6), output=name, accumulate=parts, **options)
    assert losses("parts")[0] == pytest.approx(losses("whole")[0], rel=1e-4)


@pytest.mark.slow
def test_adapters_learn_and_the_student_stays_as_it_was(base: str, teacher: str, few: str) -> None:
    before = load_file(f"{base}/model.safetensors")
    options: dict[str, Any] = {"steps": 4, "learning_rate": 2e-2, "model": base, "lora": True}
    result = train(distill, few, DistillOptions(teacher=teacher, max_tokens=4), output="lora", **options)
    assert result["end"]["eval_loss"] < result["start"]["eval_loss"]
    assert Path("lora/adapter_model.safetensors").exists()
    assert all(torch.equal(before[name], value) for name, value in load_file(f"{base}/model.safetensors").items())


def test_a_teacher_with_another_vocabulary_is_refused_and_the_way_out_is_named(base: str, taught: Path) -> None:
    write_sft(Path("sums.jsonl"), problems(0)[:20])
    with pytest.raises(InputError, match=r"another vocabulary than .* datagen respond, then datagen train sft"):
        train(distill, "sums.jsonl", DistillOptions(teacher=str(taught)), model=base, output="out", steps=1)


def test_another_teacher_under_the_same_name_is_another_run(base: str, teacher: str, few: str) -> None:
    link = Path("link")
    link.symlink_to(teacher)
    chosen = DistillOptions(teacher="link", max_tokens=2)
    options: dict[str, Any] = {"model": base, "output": "out", "steps": 1}
    train(distill, few, chosen, **options)
    link.unlink()
    link.symlink_to(Path(copytree("out", "another")).resolve())
    with pytest.raises(InputError, match="teacher: other contents"):
        train(distill, few, chosen, **options)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(base: str, teacher: str, few: str) -> None:
    """From the same sampled answers: those of a row do not depend on its process."""
    curves = []
    for name, processes, batch in (("one", 1, 8), ("two", 2, 4)):
        line = f"distill {few} --model {base} --teacher {teacher} --max-tokens 6 --steps 2 --log-every 1 -o {name}"
        train_line(f"{line} --batch-size {batch}", processes)
        curves.append([line["eval_loss"] for line in metrics(name) if "eval_loss" in line])
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
