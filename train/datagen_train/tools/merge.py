"""`datagen train merge`: fold a LoRA adapter into its base model, so that neither is needed any more.

The result is checked twice: its logits on a few texts against those of the adapter, then those of what was written and
loaded again. Only then do its files move to their final folder, the config last: a model that can be loaded is whole.
Of what is in that folder, only the files of an earlier merge are replaced, by their list in merge.json.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.errors import DatagenError, InputError
from datagen.llm.local.generation import inference_mode, load_full_model, open_model
from datagen.llm.local.hub import model_name, resolve_model
from datagen.llm.local.weights import adapter_base, is_adapter
from datagen.records.files import check_folder
from datagen.records.places import paths_in, real_path, refuse_bytes, refuse_overlap
from datagen.report.markdown import code, plain
from datagen.signals import interrupt, on_stop
from datagen_train.data.encode import Encoder
from datagen_train.data.trained import read_trained, write_trained
from datagen_train.errors import first_line
from datagen_train.models.load import DTYPES
from datagen_train.models.precision import held_in, round_weights, saved_dtype, stored_dtype
from datagen_train.models.reward_model import is_reward_model
from datagen_train.models.tokens import fit_tokenizer
from datagen_train.rewards.reward_model import RewardModel, load_reward
from datagen_train.run.card_head import head, shown_base
from datagen_train.run.folder import lock_folder
from datagen_train.run.manifest import CARD, Manifest, remove_empty
from datagen_train.tools.options import MergeOptions

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
class Difference:
    """How far two sets of logits are apart."""

    largest: float
    same_choice: float
    """Share of positions where the likeliest token is the same."""
    scale: float
    """The largest logit."""


def run(adapter: str, options: MergeOptions) -> dict[str, Any]:
    """Merge, check, write, load and check again; return the differences by step."""
    folder = resolve_model(adapter)
    if not is_adapter(folder):
        raise InputError(f"{adapter}: holds no adapter_config.json, so it is no LoRA adapter; nothing to merge")
    out = Path(options.output or f"{model_name(folder)}.merged")
    base = [] if is_reward_model(folder) else [adapter_base(folder, options.base)]
    refuse_overlap([out], paths_in([adapter, folder, *base]))
    refuse_stranger(out, overwrite=options.overwrite)
    return merge_reward(folder, out) if is_reward_model(folder) else merge_language_model(folder, out, options)


def merge_language_model(folder: Path, out: Path, options: MergeOptions) -> dict[str, Any]:
    """Merge the adapters of a language model."""
    model, tokenizer = open_model(folder, base=options.base, dtype=pick_dtype(options.dtype, folder, options.base))
    merged, after_merge = merge(model, tokenizer)
    notes = fit_tokenizer(merged, tokenizer)
    card = merge_card(out, folder, adapter_base(folder, options.base), merged.dtype)
    after_reload = write(merged, tokenizer, out, read_trained(folder), card)
    return {
        "output": str(out),
        "dtype": str(merged.dtype).removeprefix("torch."),
        "merged": asdict(after_merge),
        "read_again": asdict(after_reload),
        "notes": notes,
    }


def pick_dtype(name: str, folder: Path, base: str | None) -> torch.dtype:
    """Return the data type to merge in: the named one, or that of the base as it was saved."""
    if name != "auto":
        return DTYPES[name]
    path = adapter_base(folder, base)
    try:
        saved = stored_dtype(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its base {path} cannot be read: {first_line(error)}. Name it: --base") from error
    return saved if saved in ATOL else torch.float32


def merge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, Difference]:
    """Fold the adapter into the weights; raise DatagenError if that changes the logits."""
    texts = encode_texts(tokenizer)
    before = logits(model, texts)
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    difference = compare(before, logits(merged, texts))
    refuse("the merged model is not its adapter", merged.dtype, difference)
    return merged, difference


def refuse_stranger(out: Path, *, overwrite: bool) -> None:
    """Raise InputError if something is there that no merge has made, or that is not to be replaced."""
    refuse_bytes(out)
    check_folder(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{out}: exists; choose another -o, or --overwrite")
    if not list_of(out).path.exists():
        raise InputError(f"{out}: was not made by 'datagen train merge', so it is not replaced; choose another -o")


def list_of(out: Path) -> Manifest:
    """Return the list of the files that a merge has written to a folder."""
    return Manifest(out, out / "merge.json")


def merge_card(out: Path, adapter: Path, base: Path, dtype: torch.dtype | None, *, is_reward: bool = False) -> str:
    """Return the model card of a merged model: what it is made of, and in which data type."""
    written = f" The weights are in {str(dtype).removeprefix('torch.')}." if dtype else ""
    return (
        f"{head('reward' if is_reward else 'merge', [], str(base), base)}# {plain(out.name)}\n\n"
        f"Made by `datagen train merge`: the adapter {code(adapter.resolve().name)} is folded into its base "
        f"{code(shown_base(str(base)))}, and needs neither any more.{written} The card of the adapter says what it was "
        "trained on.\n"
    )


@contextmanager
def saving(out: Path, trained: Collection[int], card: str) -> Iterator[Path]:
    """Yield a new folder to save to; at the end its files move to `out`, where they replace those of an earlier merge.

    A stop before that leaves nothing, and one while they move lets them move.

    Args:
        out: the final folder.
        trained: digests of the prompts that the model was trained on; they are saved with it.
        card: its README.md.

    Raises:
        DatagenError: Another merge is writing `out`.
    """
    place = real_path(out)
    place.mkdir(exist_ok=True)
    with on_stop(interrupt), TemporaryDirectory(prefix=".", suffix=".part", dir=place.parent) as part:
        model = Path(part, "model")
        with lock_folder(place):
            try:
                yield model
                write_trained(model, trained)
                (model / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")
                with on_stop(lambda _: True):
                    list_of(place).remove()
                    list_of(place).move_in(model)
            finally:
                remove_empty([place])


def write(
    merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path, trained: Collection[int], card: str
) -> Difference:
    """Write to a temporary folder beside the final one, load it again, compare, and move it to its place."""
    with saving(out, trained, card) as part:
        merged.save_pretrained(part)
        tokenizer.save_pretrained(part)
        texts = encode_texts(tokenizer)
        reloaded = load_full_model(part, merged.dtype).to(merged.device)
        difference = compare(logits(merged, texts), logits(reloaded, texts))
        refuse("what was written is not what was merged", merged.dtype, difference, RELOAD_TOLERANCE)
    return difference


def merge_reward(folder: Path, out: Path) -> dict[str, Any]:
    """Merge a reward model's adapters, in the type of its base; head, contract and scores must be the same."""
    reward, dtype = load_reward(folder), saved_dtype(adapter_base(folder))
    before = reward.score(REWARD_PROMPTS, REWARD_ANSWERS)
    adapted: Any = reward.model
    merged = RewardModel(adapted.merge_and_unload(safe_merge=True), reward.tokenizer, reward.contract)
    card = merge_card(out, folder, adapter_base(folder), dtype, is_reward=True)
    with saving(out, read_trained(folder), card) as part:
        round_weights(merged.model, dtype)
        with held_in(merged.model, dtype):
            merged.model.save_pretrained(part)
        reward.tokenizer.save_pretrained(part)
        reward.contract.write(part)
        after = load_reward(part).score(REWARD_PROMPTS, REWARD_ANSWERS)
        difference = float(np.abs(np.subtract(before, after)).max())
        if not difference <= ATOL[dtype if dtype in ATOL else torch.float32]:
            raise DatagenError(f"{folder}: merged, a score differs by {difference:.2g}. Nothing was written")
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
