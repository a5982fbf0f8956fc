"""`datagen train merge`: a LoRA adapter and its base become one model, which needs neither any more.

That the merged model is the same is not believed but looked at: its logits on a few texts against the adapter's, then
those of what was written and read again. Only then does it take its place; nothing half-written has its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.engine.options import option
from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import inference_mode, load_full_model, open_model
from datagen.llm.local.weights import adapter_base
from datagen_train.data.encode import Encoder
from datagen_train.models.reward_model import is_reward_model
from datagen_train.models.tokens import fit_tokenizer
from datagen_train.tools.merge_reward import merge_reward

ATOL = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""The largest difference between logits that rounding explains. In bfloat16 it is a share of the largest logit, since a
step there is 0.125 from 16 on."""
READ_AGAIN = 0.1
"""Share of it that is left to what was written and read again: the same weights, perhaps in another order of sums."""
TEXTS = (
    "Explain why the sky is blue, in two sentences.",
    "What is 17 * 23 + 4? Show each step:\n```python\nprint(17 * 23 + 4)\n```",
    "把这句话翻译成英文：今天天气很好。",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    """What `datagen train merge` can be told."""

    output: str | None = option(None, "The folder of the merged model. [ADAPTER.merged]", short="-o")
    base: str | None = option(None, "The base model, in place of the one that the adapter names.")
    dtype: str = option("auto", "Type of the weights: auto (as the base was saved), float32 or bfloat16.")
    overwrite: bool = option(False, "Replace the folder of an earlier merge.")


@dataclass(frozen=True)
class Difference:
    """How far two sets of logits are apart."""

    largest: float
    same_choice: float
    """Share of places where the likeliest token is the same."""
    scale: float
    """The largest logit."""


def run(adapter: str, options: Options) -> dict[str, Any]:
    """Merge, check, write, check again."""
    folder = Path(adapter)
    if adapter_base(folder) is None:
        raise InputError(f"{adapter}: holds no adapter_config.json, so it is no LoRA adapter; nothing to merge")
    out = Path(options.output or f"{folder.name}.merged")
    check_place(out, overwrite=options.overwrite)
    if is_reward_model(folder):
        return merge_reward(folder, out)
    model, tokenizer = open_model(folder, base=options.base, dtype=pick_dtype(options.dtype, folder, options.base))
    merged, first = merge(model, tokenizer)
    notes = fit_tokenizer(merged, tokenizer)
    second = write(merged, tokenizer, out)
    return {
        "output": str(out),
        "dtype": str(merged.dtype).removeprefix("torch."),
        "merged": first.__dict__,
        "read_again": second.__dict__,
        "notes": notes,
    }


def pick_dtype(name: str, folder: Path, base: str | None) -> torch.dtype:
    """Return the type to merge in: that of the base as it was saved, if none is named."""
    from transformers import AutoConfig

    if name != "auto":
        if name not in DTYPES:
            raise InputError(f"--dtype {name}: expected auto, {' or '.join(DTYPES)}")
        return DTYPES[name]
    whole = base or str(adapter_base(folder))
    try:
        saved = AutoConfig.from_pretrained(whole).dtype
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: its base {whole} cannot be read: {str(error).splitlines()[0]}. Name it: --base"
        ) from error
    return saved if saved in ATOL else torch.float32


def check_place(out: Path, *, overwrite: bool) -> None:
    """Raise if the folder holds something that is not to be replaced."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not overwrite:
            raise InputError(f"{out}: exists; choose another -o, or --overwrite")
        if not (out / "config.json").exists():
            raise InputError(f"{out}: holds no model, so it is not replaced; choose another -o")


def merge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, Difference]:
    """Fold the adapter into the weights; raise if that changed what the model says."""
    texts = encode_texts(tokenizer)
    before = logits(model, texts)
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    difference = compare(before, logits(merged, texts))
    refuse("the merged model is not its adapter", merged.dtype, difference)
    return merged, difference


def write(merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> Difference:
    """Write beside the place, read again, compare, and put it there."""
    part = out.with_name(f"{out.name}.part")
    rmtree(part, ignore_errors=True)
    try:
        merged.save_pretrained(part)
        tokenizer.save_pretrained(part)
        texts = encode_texts(tokenizer)
        again = load_full_model(str(part), merged.dtype).to(merged.device)
        difference = compare(logits(merged, texts), logits(again, texts))
        refuse("what was written is not what was merged", merged.dtype, difference, READ_AGAIN)
        rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        rmtree(part, ignore_errors=True)
    return difference


def encode_texts(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Encode the texts to compare on, as prompts where there is a chat template."""
    if tokenizer.chat_template is None:
        return [list(tokenizer(text)["input_ids"]) for text in TEXTS]
    encoder = Encoder(tokenizer, set(), 0)
    return [encoder.prompt(text) for text in TEXTS]


def logits(model: PreTrainedModel, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the logits at every place of every text, one text at a time."""
    with inference_mode(model):
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in texts]


def compare(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Difference:
    one, other = torch.cat(list(before)), torch.cat(list(after))
    same = (one.argmax(-1) == other.argmax(-1)).float().mean()
    return Difference(float((one - other).abs().max()), float(same), float(one.abs().max()))


def refuse(what: str, dtype: torch.dtype, difference: Difference, share: float = 1.0) -> None:
    """Raise if logits are further apart than rounding explains, are not numbers, or (in float32) choose otherwise."""
    scale = max(1.0, difference.scale) if dtype == torch.bfloat16 else 1.0
    most = share * scale * ATOL[dtype]
    if not difference.largest <= most:
        raise DatagenError(
            f"{what}: logits differ by up to {difference.largest:.2g}, where at most {most:.2g} is rounding. "
            "Nothing was written"
        )
    if dtype == torch.float32 and difference.same_choice < 1:
        places = 100 * (1 - difference.same_choice)
        raise DatagenError(
            f"{what}: at {places:.1f} % of the places another token is the likeliest. Nothing was written"
        )
