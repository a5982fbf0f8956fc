"""A folder of a model is data: no code in it runs, no pickle in it is read, and nobody is asked."""

import ast
import json
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from datagen.errors import InputError
from datagen.llm.local.generation import open_model
from tests.forked import program

EVIL = """
from pathlib import Path
Path({mark!r}).write_text("code of the folder ran")
from transformers import {base}
class {name}({base}):
    model_type = "evil"
"""
ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "datagen").rglob("*.py"), *(ROOT / "train").rglob("*.py")])


class Program:
    """A pickle of it writes a file when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return Path.write_text, (Path("ran"), "the pickle ran")  # type: ignore[return-value]


def change(path: Path, **values: object) -> None:
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | values))


@pytest.fixture
def folder(fresh: Path) -> Path:
    """A model of its own kind, whose every part is code that writes a file when it is imported."""
    folder = Path("foreign")
    shutil.copytree(fresh, folder)
    mark = str(Path("ran").resolve())
    parts = {"Config": "PreTrainedConfig", "Model": "LlamaForCausalLM", "Tokenizer": "PreTrainedTokenizerFast"}
    for name, base in parts.items():
        (folder / f"{name.lower()}.py").write_text(EVIL.format(mark=mark, base=base, name=name))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(EVIL.format(mark=mark, base="PreTrainedConfig", name="X"))
    autos = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    mapping = {"AutoConfig": "config.Config", **dict.fromkeys(autos, "model.Model")}
    change(folder / "config.json", model_type="evil", architectures=["Model"], auto_map=mapping)
    tokenizer = {"AutoTokenizer": [None, "tokenizer.Tokenizer"]}
    change(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=tokenizer)
    return folder


COMMANDS = {
    "respond": "respond rows.jsonl --model hf:{}",
    "sft": "train sft rows.jsonl --model {} --output out",
    "classifier": "train score samples.jsonl --reward classifier:{}",
    "critic": "train ppo rows.jsonl --model {base} --critic {} --reward verifier:answer --output out",
    "chat": "train chat {}",
    "eval": "train eval {} rows.jsonl",
    "check": "train check rows.jsonl --model {}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_runs_code_of_a_folder_or_asks_whether_it_may(name: str, folder: Path, fresh: Path) -> None:
    row = {"prompt": "What colour is the sky?", "response": "blue"}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    Path("samples.jsonl").write_text(json.dumps({"prompt": "What?", "responses": ["a", "b"]}) + "\n")
    arguments = COMMANDS[name].format(folder, base=fresh)
    with program(Path()):
        ran = subprocess.run(["sh", "-c", f"yes | ./datagen {arguments}"], capture_output=True, text=True, timeout=300)
    assert not Path("ran").exists()
    assert (ran.returncode, "needs code of its own (auto_map), which is not run" in ran.stderr) == (2, True), ran.stderr
    assert "[y/N]" not in ran.stdout + ran.stderr and "Traceback" not in ran.stderr


def test_a_tokenizer_with_code_of_its_own_is_not_loaded(folder: Path, fresh: Path) -> None:
    shutil.copy(fresh / "config.json", folder / "config.json")
    with pytest.raises(InputError, match=r"^model foreign: needs code of its own"):
        open_model(folder)
    assert not Path("ran").exists()


def test_a_folder_whose_kind_the_library_knows_is_loaded_without_its_code(folder: Path, fresh: Path) -> None:
    shutil.copy(fresh / "config.json", folder / "config.json")
    shutil.copy(fresh / "tokenizer_config.json", folder / "tokenizer_config.json")
    change(folder / "config.json", auto_map={"AutoConfig": "config.Config", "AutoModelForCausalLM": "model.Model"})
    model, _ = open_model(folder)
    assert type(model).__module__.startswith("transformers.")
    assert not Path("ran").exists()


def test_kernels_of_the_hub_are_not_run(fresh: Path) -> None:
    shutil.copytree(fresh, "foreign")
    change(Path("foreign/config.json"), attn_implementation="somebody/attention")
    with pytest.raises(InputError, match="names code of the hub, somebody/attention, which is not run"):
        open_model(Path("foreign"))


@pytest.mark.parametrize("beside", [None, "other.safetensors"])
def test_weights_in_a_pickle_are_refused_with_the_way_out(beside: str | None, fresh: Path) -> None:
    folder = Path("foreign")
    shutil.copytree(fresh, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Program()))
    if beside:
        (folder / beside).touch()
    with pytest.raises(InputError, match="^model foreign: " + ("cannot be loaded" if beside else "its weights are pi")):
        open_model(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("beside", [None, "other.safetensors"])
def test_an_adapter_in_a_pickle_is_refused(beside: str | None, adapter: Path) -> None:
    folder = Path("foreign")
    shutil.copytree(adapter, folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Program()))
    if beside:
        (folder / beside).touch()
    with pytest.raises(
        InputError, match="^model foreign: " + ("has no adapter_model" if beside else "its weights are")
    ):
        open_model(folder)
    assert not Path("ran").exists()


def without_texts(path: Path) -> ast.Module:
    """Parse a file without the texts of its constants: one is the code of a card."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return tree


def test_every_part_of_a_model_is_loaded_in_one_file() -> None:
    loads = r"\bpickle\.load|\btorch\.load(?!.*weights_only=True)"
    call = re.compile(rf"\.from_pretrained\(|\bpipeline\(|trust_remote_code=(?!False)|{loads}")
    places = {path.name for path in SOURCES if call.search(ast.unparse(without_texts(path)))}
    assert places == {"loading.py"}
