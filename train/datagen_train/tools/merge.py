"""`datagen train merge`: fold a LoRA adapter into its base model, so that neither is needed any more.

The result is checked twice: its logits on a few texts against those of the adapter, then those of what was written and
loaded again. Only then is the folder renamed to its final name, so a folder of that name is always complete.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.engine.options import option
from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import inference_mode, load_full_model, open_model
from datagen.llm.local.weights import adapter_base
from datagen_train.data.encode import Encoder
from datagen_train.errors import first_line
from datagen_train.models.load import DTYPES
from datagen_train.models.reward_model import is_reward_model
from datagen_train.models.tokens import fit_tokenizer
from datagen_train.rewards.reward_model import RewardModel, load_reward

ATOL = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest difference between logits that rounding explains. In bfloat16 it is a share of the largest logit, since a
step there is 0.125 from 16 on."""
RELOAD_TOLERANCE = 0.1
"""Share of ATOL that is allowed after writing and loading: the same weights, perhaps summed in another order."""
TEXTS = (
    "Explain why the sky is blue, in two sentences.",
    "What is 17 * 23 + 4? Show each step:\n```python\nprint(17 * 23 + 4)\n```",
    "把这句话翻译成英文：今天天气很好。",
)
REWARD_PROMPTS = ("What is 17 * 23 + 4?", "把这句话翻译成英文。", "Name a river.")
REWARD_ANSWERS = ("395.", "It is fine today.", "")


@dataclass(frozen=True)
class Options:
    """Options of `datagen train merge`."""

    output: str | None = option(None, "Output folder of the merged model. [ADAPTER.merged]", short="-o")
    base: str | None = option(None, "Base model, instead of the one named in the adapter.")
    dtype: str = option("auto", "Data type of the weights: auto (that of the base model), float32 or bfloat16.")
    overwrite: bool = option(False, "Replace the folder of an earlier merge.")


@dataclass(frozen=True)
class Difference:
    """How far two sets of logits are apart."""

    largest: float
    same_choice: float
    """Share of positions where the likeliest token is the same."""
    scale: float
    """The largest logit."""


def run(adapter: str, options: Options) -> dict[str, Any]:
    """Merge, check, write, load and check again; return the differences by step."""
    folder = Path(adapter)
    if adapter_base(folder) is None:
        raise InputError(f"{adapter}: holds no adapter_config.json, so it is no LoRA adapter; nothing to merge")
    out = Path(options.output or f"{folder.name}.merged")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not options.overwrite:
            raise InputError(f"{out}: exists; choose another -o, or --overwrite")
        if not (out / "config.json").exists():
            raise InputError(f"{out}: holds no model, so it is not replaced; choose another -o")
    if is_reward_model(folder):
        return merge_reward(folder, out)
    model, tokenizer = open_model(folder, base=options.base, dtype=pick_dtype(options.dtype, folder, options.base))
    merged, after_merge = merge(model, tokenizer)
    notes = fit_tokenizer(merged, tokenizer)
    after_reload = write(merged, tokenizer, out)
    return {
        "output": str(out),
        "dtype": str(merged.dtype).removeprefix("torch."),
        "merged": asdict(after_merge),
        "read_again": asdict(after_reload),
        "notes": notes,
    }


def pick_dtype(name: str, folder: Path, base: str | None) -> torch.dtype:
    """Return the data type to merge in: the named one, or that of the base as it was saved."""
    from transformers import AutoConfig

    if name != "auto":
        if name not in DTYPES:
            raise InputError(f"--dtype {name}: expected auto, {' or '.join(DTYPES)}")
        return DTYPES[name]
    base = base or str(adapter_base(folder))
    try:
        saved = AutoConfig.from_pretrained(base).dtype
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its base {base} cannot be read: {first_line(error)}. Name it: --base") from error
    return saved if saved in ATOL else torch.float32


def merge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, Difference]:
    """Fold the adapter into the weights; raise DatagenError if that changes the logits."""
    texts = encode_texts(tokenizer)
    before = logits(model, texts)
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    difference = compare(before, logits(merged, texts))
    refuse("the merged model is not its adapter", merged.dtype, difference)
    return merged, difference


def write(merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> Difference:
    """Write to a temporary folder beside the final one, load it again, compare, and rename it."""
    part = out.with_name(f"{out.name}.part")
    rmtree(part, ignore_errors=True)
    try:
        merged.save_pretrained(part)
        tokenizer.save_pretrained(part)
        texts = encode_texts(tokenizer)
        reloaded = load_full_model(str(part), merged.dtype).to(merged.device)
        difference = compare(logits(merged, texts), logits(reloaded, texts))
        refuse("what was written is not what was merged", merged.dtype, difference, RELOAD_TOLERANCE)
        rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        rmtree(part, ignore_errors=True)
    return difference


def merge_reward(folder: Path, out: Path) -> dict[str, Any]:
    """Merge a reward model's adapters; head and contract are kept, and the scores must be the same."""
    reward = load_reward(folder)
    before = reward.score(REWARD_PROMPTS, REWARD_ANSWERS)
    adapted: Any = reward.model
    merged = RewardModel(adapted.merge_and_unload(safe_merge=True), reward.tokenizer, reward.contract)
    part = out.with_name(f"{out.name}.part")
    rmtree(part, ignore_errors=True)
    try:
        merged.model.save_pretrained(part)
        reward.tokenizer.save_pretrained(part)
        reward.contract.write(part)
        after = load_reward(part).score(REWARD_PROMPTS, REWARD_ANSWERS)
        difference = float(np.abs(np.subtract(before, after)).max())
        if not difference <= ATOL[torch.float32]:
            raise DatagenError(f"{folder}: merged, a score differs by {difference:.2g}. Nothing was written")
        rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        rmtree(part, ignore_errors=True)
    return {"output": str(out), "largest_difference": difference}


def encode_texts(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Encode the texts to compare on, as prompts if there is a chat template."""
    if tokenizer.chat_template is None:
        return [list(tokenizer(text)["input_ids"]) for text in TEXTS]
    encoder = Encoder(tokenizer, set(), 0)
    return [encoder.prompt(text) for text in TEXTS]


def logits(model: PreTrainedModel, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the logits of every text, each (tokens, vocabulary) in float32 on the CPU; one text at a time."""
    with inference_mode(model):
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in texts]


def compare(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Difference:
    one, other = torch.cat(list(before)), torch.cat(list(after))
    same = (one.argmax(-1) == other.argmax(-1)).float().mean()
    return Difference(float((one - other).abs().max()), float(same), float(one.abs().max()))


def refuse(what: str, dtype: torch.dtype, difference: Difference, share: float = 1.0) -> None:
    """Raise DatagenError if logits differ by more than `share` of ATOL, or (in float32) choose other tokens."""
    scale = max(1.0, difference.scale) if dtype == torch.bfloat16 else 1.0
    tolerance = share * scale * ATOL[dtype]
    if not difference.largest <= tolerance:
        raise DatagenError(
            f"{what}: logits differ by up to {difference.largest:.2g}; rounding explains at most {tolerance:.2g}. "
            "Nothing was written"
        )
    if dtype == torch.float32 and difference.same_choice < 1:
        percent = 100 * (1 - difference.same_choice)
        raise DatagenError(
            f"{what}: at {percent:.1f} % of the positions another token is the likeliest. Nothing was written"
        )
