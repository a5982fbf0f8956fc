"""Commands of MedicalGPT's scripts: each argument is translated, ignored with a reason, or refused with the way out."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from datagen.commands.main import app
from datagen.errors import InputError
from datagen_train.tools.medicalgpt import translate
from datagen_train.tools.medicalgpt_arguments import COMBINED, IGNORED, REFUSED, SWITCHES, TAKEN
from tests.train.tasks import problems, write_preferences, write_sft

PAGE = Path(__file__).parents[2] / "docs" / "medicalgpt.md"
ITEM = re.compile(r"^- \*\*(.*?)\*\*: (.*?)(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)
THEIRS = re.compile(r"--(\w+)")
COMMON = (
    "--validation_file_dir rows --per_device_eval_batch_size 4 --do_train --do_eval --use_peft True --seed 42 "
    "--max_train_samples 1000 --max_eval_samples 10 --warmup_ratio 0.05 --logging_strategy steps --logging_steps 10 "
    "--evaluation_strategy steps --eval_steps 50 --save_strategy steps --save_steps 500 --save_total_limit 3 "
    "--gradient_accumulation_steps 8 --per_device_train_batch_size 4 --preprocessing_num_workers 1 --output_dir out "
    "--ddp_timeout 30000 --logging_first_step True --target_modules all --lora_rank 8 --lora_alpha 16 "
    "--lora_dropout 0.05 --torch_dtype float16 --bf16 --device_map auto --report_to tensorboard "
    "--ddp_find_unused_parameters False --gradient_checkpointing True --cache_dir ./cache --template_name qwen"
)
"""What the scripts of all trainers are called with."""
PPO = (
    "--model_type bloom --model_name_or_path base --reward_model_name_or_path scorer --torch_dtype float16 "
    "--device_map auto --train_file_dir rows --validation_file_dir rows --batch_size 8 --mini_batch_size 2 "
    "--max_source_length 256 --max_target_length 128 --max_train_samples 1000 --use_peft True --lora_rank 8 "
    "--lora_alpha 16 --lora_dropout 0.05 --do_train --max_steps 100 --learning_rate 1e-5 --save_steps 50 "
    "--output_dir out --early_stopping True --target_kl 0.1 --reward_baseline 0.5 --init_kl_coef 0.2 "
    "--adap_kl_ctrl True"
)
"""Their PPO of 2023."""


def call(line: str) -> Result:
    return CliRunner().invoke(app, ["train", *shlex.split(line)], prog_name="datagen", catch_exceptions=False)


def ours(trainer: str, line: str) -> str:
    return shlex.join(translate(trainer, shlex.split(line)).words())


def test_a_whole_command_is_translated() -> None:
    launcher = "torchrun --nnodes 1 --nproc_per_node 2 training/supervised_finetuning.py"
    line = f"{launcher} --model_name_or_path base --train_file_dir rows --max_source_length 256 --max_target_length 256"
    assert ours("sft", f"{line} --num_train_epochs 1 --overwrite_output_dir {COMMON}") == (
        "rows --nproc 2 --eval-data rows --lora --lora-alpha 16 --lora-dropout 0.05 --lora-rank 8 "
        "--lora-targets all-linear --batch-size 32 --accumulate 8 --epochs 1 --max-length 512 --model base --overwrite "
        "--seed 42 --limit 1000 --warmup 0.05 --log-every 10 --eval-every 50 --save-every 500 --keep 3 --output out "
        "--checkpointing"
    )


def test_ppo_of_2023_is_translated() -> None:
    assert ours("ppo", PPO) == (
        "rows --eval-data rows --lora --lora-alpha 16 --lora-rank 8 --batch-size 8 --minibatches 4 --steps 100 "
        "--max-tokens 128 --max-length 384 --reward 'classifier:scorer#,chat' --target-kl 0.1 --adaptive-kl 6 "
        "--model base --limit 1000 --learning-rate 1e-5 --save-every 50 --output out --reward-baseline 0.5 "
        "--kl-coef 0.2"
    )


@pytest.mark.parametrize(
    ("trainer", "line", "translation"),
    [
        ("sft", "--torch_dtype float32", "--dtype float32"),
        ("sft", "--torch_dtype float32 --bf16 True", ""),
        ("sft", "--use_peft False --lora_rank 8", ""),
        ("sft", "--lora_rank 8", "--lora --lora-rank 8"),
        ("sft", "--max_steps -1 --num_train_epochs 0.5", "--epochs 0.5"),
        ("sft", "--max_steps 200 --num_train_epochs 3 --warmup_steps 20", "--steps 200 --warmup 0.1"),
        ("sft", "--max-train-samples=-1 --per-device-train-batch-size=2", "--batch-size 2 --accumulate 1"),
        ("sft", "--gradient_accumulation_steps 2", "--batch-size 16 --accumulate 2"),
        ("dpo", "--gradient_accumulation_steps 2", "--batch-size 8 --accumulate 2"),
        ("sft", "--load_in_4bit True --overwrite_output_dir False", "--qlora"),
        ("sft", "--train_on_inputs False --max_grad_norm 1.0 --neft_alpha 0", ""),
        ("sft", "--validation_split_percentage 2", "--held-out 0.02"),
        ("pretrain", "--block_size 512 --packing False", "--max-length 512"),
        ("ppo", "--target_kl 0.1", ""),
        ("ppo", "--max_eval_samples 10", "--generate 10"),
        ("grpo", "--num_generations 4 --max_completion_length 64", "--max-tokens 64 --group-size 4"),
        ("grpo", "--beta 0.1", "--kl-coef 0.1"),
    ],
)  # fmt: skip
def test_values_decide(trainer: str, line: str, translation: str) -> None:
    assert ours(trainer, line) == translation


def test_a_reward_model_of_ours_is_named_as_it_is() -> None:
    Path("mine").mkdir()
    Path("mine/reward.json").write_text("{}")
    assert ours("ppo", "--reward_model_path mine") == "--reward mine"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--load_in_8bit True", "--load_in_8bit True: 8 bits are not offered: use --qlora"),
        ("--train_on_inputs", "--train_on_inputs: user turns are never trained on"),
        ("--peft_path outputs", "merge the adapters first"),
        ("--dataset_name shibing624/medical", "name the data set as DATA: hf://NAME"),
        ("--optim adafactor", "the optimiser is AdamW"),
        ("--deepspeed zero2.json", "say --deepspeed FILE before --from-medicalgpt, or --fsdp"),
        ("--lr_scheduler_type polynomial", "say --schedule, one of cosine"),
        ("--warmup_steps 100", "say --warmup_ratio, or --max_steps"),
        ("--max_source_length 100", "say --max-length"),
        ("--early_stopping True", "--patience N"),
        ("--learning_rat 1e-5", "--learning_rat: is no argument of MedicalGPT; did you mean --learning_rate?"),
        ("--bf16 perhaps", "--bf16 perhaps: expected True or False"),
        ("rows.jsonl", "ours go before '--'"),
        ("CUDA_VISIBLE_DEVICES=0 python sft.py", "set variables before 'datagen'"),
        ("torchrun --nnodes 2 sft.py", "training runs on one machine"),
    ],
)
def test_what_would_change_the_result_is_refused_with_the_way_out(line: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        translate("sft", shlex.split(line))
    ran = call(f"sft --from-medicalgpt -- {line}")
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1) and says in ran.stderr


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_ignored_is_listed(name: str) -> None:
    translation = translate("sft", [f"--{name}", "x"])
    assert translation.words() == []
    assert translation.notes == [f"ignored: --{name}: {IGNORED[name]}"]


@pytest.mark.parametrize("trainer", ["pretrain", "sft", "reward", "dpo", "ppo", "grpo"])
def test_a_translated_command_is_one_that_the_trainer_takes(trainer: str) -> None:
    """Up to the libraries: the data are of another kind, which only the run itself says."""
    write = write_preferences if trainer in ("reward", "dpo") else write_sft
    write(Path("rows"), problems(0)[:20])
    special = "--reward_model_path scorer" if trainer in ("ppo", "grpo") else ""
    ran = call(f"{trainer} -q --from-medicalgpt rows -- --model_name_or_path nowhere {special} {COMMON}")
    assert ran.exit_code == 2
    *notes, command, error = ran.stderr.splitlines()
    assert error.startswith("error: model nowhere: no folder here"), "the options themselves are right"
    assert command.startswith(f"translated: datagen train {trainer} -q rows --eval-data rows ")
    assert all(note.startswith("ignored: --") for note in notes)


@pytest.mark.slow
def test_a_translated_command_runs(fresh: Path) -> None:
    Path("rows").mkdir()
    write_sft(Path("rows/a.jsonl"), problems(0)[:40])
    line = f"--model_name_or_path {fresh} --train_file_dir rows --max_steps 2 {COMMON}".replace(
        "--validation_file_dir rows", ""
    )
    ran = call(f"sft -q --held-out 0 --from-medicalgpt -- {line}")
    assert ran.exit_code == 0, ran.stderr
    assert Path("out/adapter_model.safetensors").exists()
    config = Path("out/run/config.json").read_text()
    assert '"lora_rank": 8' in config and '"rows_per_step": 32' in config and '"seed": 42' in config


def test_the_page_lists_the_arguments_of_the_tables_and_what_becomes_of_each() -> None:
    known = {**TAKEN, **SWITCHES, **COMBINED, **dict.fromkeys([*IGNORED, *REFUSED], "")}
    text = PAGE.read_text(encoding="utf-8").partition("## Model\n")[2].partition("## Where results differ")[0]
    rows: dict[str, str] = {}
    for names, says in ITEM.findall(text):
        for name in THEIRS.findall(names):
            rows[name] = rows.get(name, "") + says
    assert sorted(rows.keys() - known.keys() - {"nproc_per_node"}) == []
    assert sorted(known.keys() - rows.keys()) == []
    for name, flag in known.items():
        word = "refused" if name in REFUSED else "ignored" if name in IGNORED else flag
        assert word in rows[name], f"--{name}: {word}"
