"""Names of the libraries that are not public: each is there, with the parameters that training counts on."""

import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer

from datagen.errors import InputError
from datagen_train import dpo, grpo, ppo, reward, sft
from datagen_train.run.library_names import TESTED, overrides, require_attributes
from datagen_train.run.trl_adapter import PreTokenized
from tests.test_repository import imported_names
from tests.train.test_without_libraries import python

ROOT = Path(__file__).resolve().parents[2]
METHODS = [
    (DPOTrainer, "_prepare_dataset", ["dataset", "processing_class", "args", "dataset_name"]),
    (KTOTrainer, "_prepare_dataset", ["dataset", "processing_class", "args", "dataset_name"]),
    (GRPOTrainer, "_tokenize_prompts", ["prompts"]),
    (RLOOTrainer, "_tokenize_prompts", ["prompts"]),
    (GRPOTrainer, "_generate_and_score_completions", ["inputs"]),
    (RLOOTrainer, "_generate_and_score_completions", ["inputs"]),
    (
        GRPOTrainer,
        "_generate_single_turn",
        ["prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
    ),
    (RLOOTrainer, "_generate_single_turn", ["prompt_ids", "images", "multimodal_fields"]),
    (Trainer, "_get_train_sampler", ["train_dataset"]),
    (Trainer, "_prepare_inputs", ["inputs"]),
    (Trainer, "_run_epoch", None),
    (Trainer, "_save", None),
    (Trainer, "_load_from_checkpoint", ["resume_from_checkpoint", "model"]),
    (Trainer, "_load_best_model", []),
    (Trainer, "save_model", ["output_dir", "_internal_call"]),
    (Trainer, "_move_model_to_device", ["model", "device"]),
    (Trainer, "_defer_fsdp_gradient_reduction", []),
    (Trainer, "_save_optimizer_and_scheduler", ["output_dir"]),
    (Trainer, "_load_optimizer_and_scheduler", ["checkpoint"]),
]
"""Methods that are replaced, and their parameters; None where all are handed on."""
CALLS = ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"]
"""The first parameters of `_get_per_token_logps_and_entropies`, which is called."""
USES = [
    (GRPOTrainer, r"completion_ids, logprobs = self\._generate_single_turn\("),
    (RLOOTrainer, r"completion_ids = self\._generate_single_turn\("),
    (GRPOTrainer, r"per_token_loss1 = coef_1 \* advantages"),
    (RLOOTrainer, r"per_sequence_loss1 = coef_1 \* advantages"),
    (GRPOTrainer, r"prompt_ids, images, multimodal_fields = self\._tokenize_prompts\(prompts\)"),
    (RLOOTrainer, r"prompt_ids, images, multimodal_fields = self\._tokenize_prompts\(prompts\)"),
    (GRPOTrainer, r"self\._metrics = \{\"train\": defaultdict\(list\)"),
    (RLOOTrainer, r"self\._metrics = \{\"train\": defaultdict\(list\)"),
    (GRPOTrainer, r"self\._step % generate_every == 0 or self\._buffered_inputs is None"),
    (RLOOTrainer, r"self\._step % generate_every == 0 or self\._buffered_inputs is None"),
    (Trainer, r"self\._tr_loss \+= "),
    (Trainer, r"self\._globalstep_last_logged = self\.state\.global_step"),
    (Trainer, r"self\.save_model\(output_dir, _internal_call=True\)"),
    (Trainer, r"self\._move_model_to_device\(model, args\.device\)"),
    (Trainer, r"if self\.is_distributed_loading_by_transformers:\n.*\n.*\n +model = self\.accelerator\.prepare_model"),
    (Trainer, r"sync_context = self\._defer_fsdp_gradient_reduction"),
]
"""What the library does with these names."""
OURS = {
    "_prepare_dataset", "_tokenize_prompts", "_run_epoch", "_load_from_checkpoint", "_load_best_model", "_metrics",
    "_step", "_internal_call", "_save", "_get_train_sampler", "_prepare_inputs", "_generate_and_score_completions",
    "_move_model_to_device", "_defer_fsdp_gradient_reduction", "_save_optimizer_and_scheduler",
    "_load_optimizer_and_scheduler",
    "_generate_single_turn", "_get_per_token_logps_and_entropies",
}  # fmt: skip
"""All that is used of the libraries and not public."""
WAY_OUT = (
    "The installed library has changed. Read what it does now, adapt the override in train/datagen_train (or give it "
    "up for a public name), and keep the requirement in pyproject.toml below this version until then: "
)


@pytest.mark.parametrize(("trainer", "name", "parameters"), METHODS)
def test_a_method_that_is_replaced_has_the_parameters_of_the_override(
    trainer: type, name: str, parameters: list[str] | None
) -> None:
    method = vars(trainer).get(name)
    assert method is not None, f"{WAY_OUT}no {trainer.__name__}.{name}"
    names = list(inspect.signature(method).parameters)[1:]
    assert parameters in (None, names), f"{WAY_OUT}{trainer.__name__}.{name} takes {names}"


@pytest.mark.parametrize("trainer", [GRPOTrainer, RLOOTrainer])
def test_a_method_that_is_called_has_the_parameters_of_the_call(trainer: type) -> None:
    name = "_get_per_token_logps_and_entropies"
    names = list(inspect.signature(vars(trainer)[name]).parameters)[1:]
    assert names[: len(CALLS)] == CALLS, f"{WAY_OUT}{trainer.__name__}.{name} takes {names}"


@pytest.mark.parametrize(("trainer", "use"), USES)
def test_the_library_uses_the_names_as_training_expects(trainer: type, use: str) -> None:
    assert re.search(use, inspect.getsource(trainer)), f"{WAY_OUT}{trainer.__name__} does not hold {use}"


def our_trainers() -> set[type]:
    """Return the trainers of ours that build on one of the library."""
    values = [value for module in (dpo, grpo, ppo, reward, sft) for value in vars(module).values()]
    classes = {base for value in values if isinstance(value, type) for base in value.__mro__}
    return {base for base in classes if issubclass(base, Trainer) and base.__module__.startswith("datagen_train.")}


def test_no_other_private_name_of_a_library_is_used() -> None:
    trainers = our_trainers()
    assert {"Sft", "Dpo", "Kto", "Grpo", "Ppo", "RewardTrainer"} <= {trainer.__name__ for trainer in trainers}
    words = {word for trainer in trainers for word in re.findall(r"\b_[a-z]\w+", inspect.getsource(trainer))}
    library = {name for trainer in (DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer) for name in dir(trainer)}
    assert words & (library | OURS) == OURS


def test_no_private_name_of_a_library_is_imported() -> None:
    for path in (ROOT / "train").rglob("*.py"):
        for name in imported_names(ast.parse(path.read_text())):
            assert not (name.startswith(("trl.", "transformers.", "peft.")) and "._" in name), (path, name)


def test_the_version_that_an_error_names_is_the_tested_one() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_a_method_that_the_library_no_longer_has_is_one_line() -> None:
    says = f"trl {version('trl')} has no DPOTrainer._no_such, which training needs. To install a version that has it: "
    with pytest.raises(InputError, match=re.escape(says) + f".* trl=={TESTED['trl']}$"):
        overrides("_prepare_dataset", "_no_such")(type("Renamed", (PreTokenized, DPOTrainer), {"_no_such": None}))


def test_an_attribute_that_the_library_no_longer_sets_is_one_line() -> None:
    trainer: Any = object.__new__(GRPOTrainer)
    trainer._step = 0
    require_attributes(trainer, "_step")
    with pytest.raises(InputError, match=r"has no GRPOTrainer\._metrics, which training needs"):
        require_attributes(trainer, "_step", "_metrics")


@pytest.mark.parametrize(
    ("module", "trainer", "name"),
    [
        ("datagen_train.grpo", "RLOOTrainer", "_tokenize_prompts"),
        ("datagen_train.sft", "Trainer", "_run_epoch"),
    ],
)
@pytest.mark.slow
def test_a_command_with_a_library_that_lacks_a_method_ends_with_one_line(module: str, trainer: str, name: str) -> None:
    library = "transformers" if trainer == "Trainer" else "trl"
    remove = f"from {library} import {trainer}; delattr({trainer}, {name!r})"
    command = f"from datagen.libraries import import_extra; import_extra({module!r}, 'datagen train')"
    ran = python(f"{remove}\ntry:\n    {command}\nexcept Exception as error:\n    print(type(error).__name__, error)")
    assert ran.stdout.startswith(f"InputError {library} {version(library)} has no {trainer}.{name}"), ran.stderr
    assert ran.stdout.count("\n") == 1 and not ran.stderr
