"""No judge scores answers of its own model family as a reward, as none does in `datagen judge` (judges/vendors.py).

The family of a policy is that of the model that its training began with, where its folder or its run names that; else
what the type in its config names. A model made from nothing (`tiny`) has none, nor has one whose name says nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from datagen.errors import InputError
from datagen.judges.vendors import families, vendors
from datagen.llm.local.hub import model_name, resolve_model
from datagen.llm.local.weights import adapter_base, is_adapter, weights_digest
from datagen.llm.spec import Spec
from datagen_train.rewards.judge import split_spec
from datagen_train.rewards.specs import split_weight
from datagen_train.run.folder import RunFolder, read_object

JUDGE, LOCAL, TINY = "judge:", "hf:", "tiny"
ANCESTORS = 20
"""Trainings, one after another, that are looked at for the model that the first began with."""


def judges_of(rewards: Sequence[str]) -> list[Spec]:
    """Return the models that judge, of what `--reward` names."""
    names = [split_weight(reward)[1] for reward in rewards]
    return [split_spec(name.removeprefix(JUDGE))[1] for name in names if name.startswith(JUDGE)]


def refuse_partial_judges(rewards: Sequence[str], policy: str, *, allow_self: bool) -> None:
    """Refuse rewards by a judge of the policy's family, or by the policy itself, unless that is allowed.

    Args:
        rewards: What `--reward` names.
        policy: What `--model` names.
        allow_self: Whether `--allow-self` is given.

    Raises:
        InputError: A judge is of the policy's family; or there is no such policy.
    """
    judges = [] if allow_self else judges_of(rewards)
    partial = [judge.identity for judge in judges if is_partial(judge, policy)]
    if partial:
        raise InputError(
            f"--reward judge:{partial[0]}: would judge answers of its own model family, that of --model {policy}: name "
            "another judge, or add --allow-self"
        )


def is_partial(judge: Spec, policy: str) -> bool:
    """Return whether a judge is of the family of a policy, or has its weights."""
    if policy.partition(":")[0] == TINY:
        return False
    known = families(judge.identity)
    if judge.name.startswith(LOCAL):
        if weights_digest(resolve_model(judge.name)) == weights_digest(resolve_model(policy)):
            return True
        known |= policy_families(judge.name)
    return bool(known & policy_families(policy))


def policy_families(policy: str, ancestors: int = ANCESTORS) -> frozenset[str]:
    """Return the vendors of a model of this machine or the hub; none where they are not known."""
    if policy.partition(":")[0] == TINY or not ancestors:
        return frozenset()
    if not Path(policy.removeprefix(LOCAL)).expanduser().is_dir() and (known := vendors(policy)):
        return known
    try:
        folder = resolve_model(policy)
    except InputError:  # an ancestor that is gone
        return vendors(policy)
    origin = str(adapter_base(folder)) if is_adapter(folder) else trained_from(folder)
    if origin:
        return policy_families(origin, ancestors - 1)
    config = folder / "config.json"
    kind = str(read_object(config).get("model_type", "")) if config.exists() else ""
    return vendors(model_name(folder)) or vendors(kind)


def trained_from(folder: Path) -> str | None:
    """Return the model that a training of ours began with; None for a folder that is of none."""
    report = RunFolder(folder).report
    return str(read_object(report)["run"]["model"]) if report.exists() else None
