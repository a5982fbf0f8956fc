"""The lines that begin with "Next:": the commands to run after this one, complete and ready to paste.

They follow from the rows of the output. Models come from the run itself and, through the x.meta.json beside each file,
from the runs that made its input: the teacher of the seeds is known when the answers are to be judged.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from datagen.engine.method import Method
from datagen.errors import InputError
from datagen.installation import install_line, program, shown
from datagen.judges.judges import impartial
from datagen.llm.default import default_models
from datagen.llm.spec import parse_spec
from datagen.records import kinds
from datagen.records.files import open_input
from datagen.records.layout import is_meta, unpack_meta
from datagen.records.makers import is_sim
from datagen.records.record import Row

TRAINING_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
TOY = "tiny is a toy that is made from nothing, to try the tool with: --model also takes a folder or a hub name"
SELF_JUDGING = "no other model is known here, so this one judges its own answers, and may prefer them: name another"
IN_RECIPE = "DATAGEN_RECIPE"
"""Set for a command that is a step of a recipe."""
SAMPLES = 4
"""Answers to a prompt, to be compared."""
LONGEST_LINEAGE = 50
Models = Mapping[str, Sequence[str]]
"""Model specs: "model" for every role, and roles with models of their own."""


def is_step() -> bool:
    """Is this command a step of a recipe, which says what comes next?"""
    return IN_RECIPE in os.environ


def after_rows(path: Path, method: Method, models: Models) -> list[str]:
    """Return the lines to print after a command of datagen.

    Args:
        path: The output; it holds a row.
        method: The method that made it.
        models: The models of the run.
    """
    row = first_row(path)
    if method.next_step == "" or row is None or is_step():
        return []
    return after_kind(path, method.next_step or step_for(row), models)


def after_kind(path: Path, step: str, models: Models) -> list[str]:
    """Return the lines for the command that takes a file, such as "judge" or "train sft"."""
    if step == "preferences":
        return preference_lines(path)
    if step == "train sft":
        return training(f"sft {shown(path)} --model tiny", note=TOY)
    if step == "judge":
        return judge_lines(path, models)
    if step in ("evolve", "respond"):
        return [line(f"{step} {shown(path)} {model_flags(models)}".rstrip())]
    return [line(f"{step} {shown(path)}")]


def step_for(row: Row) -> str:
    """Return the command that takes rows of this kind."""
    if "ranks" not in row and any(known is not None for known in verdicts(row)):
        return "pairs --by verified"
    kinds = {"label": "train dpo", "chosen": "preferences", "ranks": "pairs", "responses": "judge"}
    kinds |= {"response": "train sft", "text": "train pretrain"}
    return next((step for key, step in kinds.items() if key in row), "respond")


def verdicts(row: Row) -> list[bool | None]:
    """Return what the verifiers of `respond --verify` said of each answer of a row; none of a row with one answer."""
    is_ours = "responses" in row and is_meta(row.get("meta"))
    answers = unpack_meta(row["meta"]).get("responses") or [] if is_ours else []
    return [answer.get("verified") for answer in answers]


def preference_lines(path: Path) -> list[str]:
    """Return the lines that train on preferences, from the policy that wrote the answers if there is one.

    Without a trained model the chosen answers make one, as in the DPO paper (arXiv 2305.18290, section 4).
    """
    policy = next((model.removeprefix("hf:") for model in lineage_models(path) if is_trained(model)), None)
    if policy is None:
        return training(
            f"sft {shown(path)} --format chosen --model tiny", note=f"DPO starts from a trained model. {TOY}"
        )
    dpo = f"dpo {shown(path)} --model {shown(policy)}"
    return training(dpo, f"reward {shown(path)} --model {shown(policy)}")


def judge_lines(path: Path, models: Models) -> list[str]:
    """Return the line that has answers judged, by a model of another family than those that wrote them."""
    authors = [spec for specs in models.values() for spec in specs]
    known = [*default_models(), *lineage_models(path)]
    judges = [
        judge
        for judge in dict.fromkeys(known)
        if not judge.startswith(("replay:", "hf:"))
        and (is_sim(judge) in (False, any(map(is_sim, authors))))
        and impartial([identity(judge)], map(identity, authors), allow_self=False)
    ]
    if judges:
        return [line(f"judge {shown(path)} --model {shlex.quote(judges[0])}")]
    if not authors:  # a command without a model, on rows of somebody else
        return [line(f"judge {shown(path)}")]
    own = min(authors, key=lambda spec: spec.startswith(("hf:", "replay:")))
    return [line(f"judge {shown(path)} --model {shlex.quote(own)} --allow-self"), remark(SELF_JUDGING)]


def after_training(command: str, folder: Path, data: Path, model: str, *, is_adapter: bool) -> list[str]:
    """Return the lines to print after a trainer.

    Args:
        command: The trainer, such as "sft".
        folder: The trained model.
        data: The file that it was trained on.
        model: The model that the training started from, as it was given.
        is_adapter: Whether the folder holds LoRA adapters alone.
    """
    if is_step():
        return []
    if is_adapter and command != "reward":
        return [line(f"train merge {shown(folder)}")]
    row = (first_row(data) if data.is_file() else None) or {}
    if command == "reward":
        return reward_lines(folder, data, model)
    if command == "classify":
        return [line(f"train eval {shown(folder)} {shown(data)} --held-out 0.05")]
    chat = line(f"train chat {shown(folder)}")
    if command == "sft" and "chosen" in row:
        return [line(f"train {name} {shown(data)} --model {shown(folder)}") for name in ("dpo", "reward")]
    if command == "pretrain" or not {"prompt", "instruction", "messages"} & row.keys():
        return [chat]
    teachers = [spec for spec in lineage_models(data) if not spec.startswith(("replay:", "hf:"))][:1]
    flags = model_flags({"model": [f"hf:{folder}", *teachers]})
    output = f"{folder.name}.samples.jsonl"
    form = " --format prompt" if "chosen" in row else ""
    return [chat, line(f"respond {shown(data)}{form} -k {SAMPLES} {flags} -o {shown(output)}")]


def after_merge(adapter: Path, merged: Path) -> list[str]:
    """Return the lines to print after an adapter was merged: those of the run that trained it, for the merged model."""
    report = read_json(adapter / "run" / "report.json") or {}
    run, command = report.get("run", {}), report.get("result", {}).get("command", "")
    data, model = Path(run.get("data", "-")), run.get("model", "")
    return after_training(command.removeprefix("train "), merged, data, model, is_adapter=False)


def reward_lines(folder: Path, data: Path, model: str) -> list[str]:
    """Return the line that uses a reward model: PPO, on the prompts of the preferences that it was trained on."""
    policies = [model, *(spec.removeprefix("hf:") for spec in lineage_models(data))]
    policy = next((spec for spec in policies if is_trained(f"hf:{spec}")), None)
    if policy is None:
        return training(
            f"sft {shown(data)} --format chosen --model tiny", note=f"PPO starts from a trained model. {TOY}"
        )
    return [line(f"train ppo {shown(data)} --format prompt --model {shown(policy)} --reward {shown(folder)}")]


def training(*commands: str, note: str | None = None) -> list[str]:
    """Return the lines of `datagen train` commands; the first one installs what training needs, if that is missing."""
    missing = any(find_spec(name) is None for name in TRAINING_PACKAGES)
    lines = [f"Next: {install_line('train')}"] if missing else []
    return [*lines, *(line(f"train {command}") for command in commands), *([remark(note)] if note else [])]


def line(command: str) -> str:
    """Return a line for a command of this program."""
    return f"Next: {program()} {command}"


def remark(text: str) -> str:
    """Return a line that explains the one before."""
    return f"      {text}"


def model_flags(models: Models) -> str:
    """Return the flags that name the models of a run; those of its roles, if there is no model for all roles."""
    specs = models.get("model") or list(dict.fromkeys(spec for specs in models.values() for spec in specs))
    return " ".join(f"--model {shlex.quote(spec)}" for spec in specs)


def lineage_models(path: Path) -> list[str]:
    """Return the specs of the models of a file's run, then those of the runs that made its input, each once."""
    return list(dict.fromkeys(spec for run in lineage(path) for spec in run))


def lineage(path: Path) -> Iterator[list[str]]:
    """Yield the models of the run that wrote a file, then of the run that wrote its input, as far as that is known."""
    for _ in range(LONGEST_LINEAGE):
        run = (read_json(path.with_suffix(".meta.json")) or {}).get("run")
        if not isinstance(run, dict) or not isinstance(run.get("models"), dict):
            return  # another tool's file
        yield [spec for specs in run["models"].values() for spec in specs]
        path = Path(str(run.get("input")))


def read_json(path: Path) -> Row | None:
    """Return the object in a file of ours; None if there is none, or another tool's."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_trained(spec: str) -> bool:
    """Is this the folder of a trained model, in place?"""
    return spec.startswith("hf:") and Path(spec.removeprefix("hf:"), "config.json").is_file()


def identity(spec: str) -> str:
    """Return the identity of a model; the spec itself if the model is not there any more."""
    try:
        return parse_spec(spec).identity
    except InputError:
        return spec


def first_row(path: Path) -> Row | None:
    """Return the first row of a file, or None if there is none."""
    try:
        with open_input(str(path)) as file:
            return kinds.first_row(str(path), file)
    except InputError:
        return None
