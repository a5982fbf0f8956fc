"""Folders of ours in the code of others: transformers' pipeline, peft, lm-eval, the rules of vLLM, and gguf's tables.

lm-eval and gguf are in no extra: their tests run in an environment that has them (`pip install lm-eval gguf`).
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

from datagen_train import sft
from datagen_train.tools import evaluate, merge
from datagen_train.tools.chat import Chat
from datagen_train.tools.evaluate import load_trained
from datagen_train.tools.options import ChatOptions, EvalOptions, MergeOptions
from tests.once import once
from tests.train.conftest import colour_rows, encode
from tests.train.real_models import REAL, make_real
from tests.train.runs import train
from tests.train.tasks import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROWS = [{"prompt": str(row.prompt), "response": row.response or ""} for row in colour_rows()]
TURNED = {"blue": "red", "green": "blue", "red": "green"}
FAMILIES = {"Qwen2": "QWEN2", "Llama 3": "LLAMA", "Gemma 2": "GEMMA2", "GPT-2": "GPT2"}
"""Families of tests/train/real_models.py, and their names in gguf."""
VLLM_MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
"""Modules of a Llama-like model to which vLLM adds adapters."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of --max-lora-rank; it must be at least the rank of every adapter."""


class Folders(NamedTuple):
    """The trained folders of one family."""

    family: str
    sft: str
    lora: str
    """An adapter on `sft` that answers with other colours."""


@pytest.fixture(scope="session", params=FAMILIES)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A family trained on the colours, and an adapter on the result."""
    name: str = request.param
    path = once(tmp_path_factory, f"colours of {name}", lambda folder: train_family(name, folder))
    return Folders(name, str(path / "sft"), str(path / "lora"))


def train_family(name: str, path: Path) -> None:
    model, tokenizer = make_real(name, [" ".join(row.values()) for row in ROWS])
    model.save_pretrained(path / "base")
    tokenizer.save_pretrained(path / "base")
    rows = write_rows(path / "rows.jsonl", ROWS)
    turned = write_rows(path / "turned.jsonl", [row | {"response": TURNED[row["response"]]} for row in ROWS])
    common: dict[str, Any] = {"held_out": 0, "batch_size": 6, "seed": 1}
    train(sft, rows, model=str(path / "base"), output=str(path / "sft"), steps=60, learning_rate=6e-3, **common)
    adapting: dict[str, Any] = {"model": str(path / "sft"), "steps": 30, "learning_rate": 2e-2, "lora": True}
    train(sft, turned, output=str(path / "lora"), **adapting, **common)


def chat(folder: str, text: str) -> str:
    return Chat(load_trained(folder, "float32"), ChatOptions(temperature=0, max_tokens=12)).ask(text).text


def config(folder: str, name: str) -> dict[str, Any]:
    return dict(json.loads(Path(folder, name).read_text()))


def tensors(folder: str, name: str) -> dict[str, list[int]]:
    """Return the shapes of the tensors of a file by name."""
    with safe_open(Path(folder, name), "pt") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118


def test_a_pipeline_of_transformers_answers_as_chat_does(folders: Folders) -> None:
    answer = pipeline("text-generation", model=folders.sft, device="cpu")
    for row in ROWS:
        messages = [{"role": "user", "content": row["prompt"]}]
        (reply,) = answer(messages, do_sample=False, max_new_tokens=12)
        assert reply["generated_text"][-1]["content"] == chat(folders.sft, row["prompt"]) == row["response"]


def test_peft_alone_merges_to_the_weights_of_train_merge(folders: Folders) -> None:
    merge.run(folders.lora, MergeOptions(output="merged"))
    ours = AutoModelForCausalLM.from_pretrained("merged")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders.sft), folders.lora)
    theirs = theirs.merge_and_unload()
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=1e-6, msg=name)
    base = AutoModelForCausalLM.from_pretrained(folders.sft).state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in ours.state_dict().items())
    turned = [chat(folders.lora, row["prompt"]) for row in ROWS]
    assert [chat("merged", row["prompt"]) for row in ROWS] == turned != [row["response"] for row in ROWS]


def test_lm_eval_finds_the_likelihoods_of_train_eval(folders: Folders) -> None:
    """By the text alone: it renders the template, and tokenises prompt and answer together.

    It moves white space at the end of a prompt to the answer, so that is scored by itself and subtracted. With an
    adapter it cuts off rows of the vocabulary that no token has, so that their share of the probability is missing.
    """
    library = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
    rows = write_rows("rows.jsonl", ROWS)
    (first, *_) = encode(load_trained(folders.sft, "float32"), colour_rows())
    for folder, adapter in ((folders.sft, None), (folders.sft, folders.lora)):
        model = library.HFLM(folder, peft=adapter, device="cpu", dtype="float32", batch_size=2)
        end, total = model.tokenizer.decode(first.ids[-1]), 0.0
        for row in ROWS:
            prompt = model.apply_chat_template([{"role": "user", "content": row["prompt"]}])
            gap = prompt[len(prompt.rstrip()) :]
            parts = [(prompt.rstrip(), text) for text in (gap + row["response"] + end, gap) if text]
            likelihoods = model.loglikelihood([SimpleNamespace(args=part) for part in parts], disable_tqdm=True)
            total += likelihoods[0][0] - sum(value for value, _ in likelihoods[1:])
        result = evaluate.run(adapter or folder, str(rows), EvalOptions(all=True, generate=0, dtype="float32"))
        accuracy = 1e-3 if adapter and REAL[folders.family].spare else 1e-4
        assert -total / result["trained_tokens"] == pytest.approx(result["loss"], rel=accuracy, abs=1e-5)


def test_an_adapter_keeps_the_rules_of_vllm(folders: Folders) -> None:
    """Those that it checks when it loads one: no module that is saved whole, no bias, no DoRA, names that it knows."""
    settings = config(folders.lora, "adapter_config.json")
    assert settings["peft_type"] == "LORA"
    assert settings["r"] <= 16 and settings["r"] in VLLM_RANKS, "16 is the default of --max-lora-rank"
    assert not settings["modules_to_save"] and settings["bias"] == "none" and not settings["use_dora"]
    assert not settings.get("rank_pattern") and not settings.get("alpha_pattern"), "one rank for all modules"
    assert isinstance(settings["target_modules"], list)
    names = tensors(folders.lora, "adapter_model.safetensors")
    parsed = [re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name) for name in names]
    assert all(parsed), "no embedding and no other weight"
    modules = {match[1] for match in parsed if match}
    endings = {name.rpartition(".")[2] for name in modules}
    assert endings == {name.rpartition(".")[2] for name in settings["target_modules"]}
    if "gate_proj" in endings:  # Llama and its relatives; others have names of their own
        assert endings <= VLLM_MODULES
    base = dict(AutoModelForCausalLM.from_pretrained(folders.sft).named_modules())
    assert modules <= base.keys(), "each is a module of the base"
    for name in modules:
        a, b = (names[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        assert a[0] == b[1] == settings["r"]


def test_a_converter_to_gguf_finds_what_it_reads(folders: Folders) -> None:
    settings, read = config(folders.sft, "config.json"), AutoConfig.from_pretrained(folders.sft)
    assert len(settings["architectures"]) == 1 and settings["dtype"] == "float32"
    tokenizer = AutoTokenizer.from_pretrained(folders.sft)
    rows = AutoModelForCausalLM.from_pretrained(folders.sft).get_input_embeddings().num_embeddings
    assert read.vocab_size == rows > max(tokenizer.get_vocab().values())
    written = config(folders.sft, "tokenizer.json")
    assert written["model"]["type"] == "BPE" and written["model"]["merges"]
    assert tokenizer.chat_template and settings["eos_token_id"] is not None
    assert len(list(Path(folders.sft).glob("*.safetensors"))) == 1


def test_the_tables_of_gguf_know_each_tensor_and_special_token(folders: Folders) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[FAMILIES[folders.family]], 2)
    names = tensors(folders.sft, "model.safetensors")
    unknown = [key for key in names if table.get_name(key, try_suffixes=(".weight", ".bias")) is None]
    assert not unknown, unknown
    special = gguf.SpecialVocab(folders.sft, load_merges=True)
    tokenizer = AutoTokenizer.from_pretrained(folders.sft)
    assert special.special_token_ids["eos"] == tokenizer.eos_token_id
    assert special.chat_template == tokenizer.chat_template
    assert special.merges
