"""Merging the adapters of a reward model: the head and the contract come along, and the scores stay what they were."""

from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from datagen.errors import DatagenError
from datagen_train.rewards.reward_model import RewardModel, load_reward

ASKED, ANSWERED = ("What is 17 * 23 + 4?", "把这句话翻译成英文。", "Name a river."), ("395.", "It is fine today.", "")
"""Prompts and answers to compare on."""
ATOL = 1e-3
"""The largest difference between normalised scores that rounding explains."""


def merge_reward(folder: Path, out: Path) -> dict[str, Any]:
    """Merge, write beside the place, read again, compare, and put it there; raise if a score is another one."""
    reward = load_reward(folder)
    before = reward.score(ASKED, ANSWERED)
    adapted: Any = reward.model
    part = out.with_name(f"{out.name}.part")
    rmtree(part, ignore_errors=True)
    try:
        merged = RewardModel(adapted.merge_and_unload(safe_merge=True), reward.tokenizer, reward.contract)
        merged.model.save_pretrained(part)
        reward.tokenizer.save_pretrained(part)
        reward.contract.write(part)
        difference = float(np.abs(np.subtract(before, load_reward(part).score(ASKED, ANSWERED))).max())
        if not difference <= ATOL:
            raise DatagenError(f"{folder}: merged, a score differs by {difference:.2g}. Nothing was written")
        rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        rmtree(part, ignore_errors=True)
    return {"output": str(out), "largest_difference": difference}
