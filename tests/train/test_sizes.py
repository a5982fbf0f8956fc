"""The arithmetic of docs/sizes.md, against the tensors of real runs and of real layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, TrainerCallback, set_seed

from benchmarks.sizes import SHAPES, SINGLE, TOKENS, Shape, activations, adapted, frozen, tables, whole
from datagen_train import sft
from datagen_train.run.trl_adapter import Sft
from tests.train.conftest import colour_rows
from tests.train.real_models import REAL, make_real
from tests.train.runs import train
from tests.train.tasks import write_rows


def shape_of(config: Any) -> Shape:
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    sizes = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, width, config.vocab_size)
    return Shape("test", *sizes, is_tied=config.tie_word_embeddings)


def config_of(shape: Shape, heads: int) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=heads, num_key_value_heads=heads * shape.kv // shape.hidden,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.is_tied,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "heads", "parameters"), [(0, 14, 494_032_768), (3, 28, 7_615_616_512)])
def test_the_parameters_are_those_of_the_published_models(number: int, heads: int, parameters: int) -> None:
    """Qwen2.5-0.5B and Qwen2.5-7B."""
    shape = SHAPES[number]
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config_of(shape, heads))
    assert shape.parameters == sum(p.numel() for p in model.parameters()) == parameters
    assert shape.tensors == len(list(model.parameters()))
    assert shape.linear == sum(p.numel() for name, p in model.named_parameters() if "proj.weight" in name)


class Counted(TrainerCallback):
    """Counts the bytes of the gradients before a step, and those of all else after it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.bytes: dict[str, int] = {}

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        self.bytes = {"gradients": sum(gradient.nbytes for gradient in gradients)}

    def on_step_end(self, *_: Any, **__: Any) -> None:
        states = [value for state in self.trainer.optimizer.state.values() for value in state.values()]
        self.bytes |= {
            "weights": sum(p.nbytes for p in self.trainer.model.parameters()),
            "optimizer": sum(value.nbytes for value in states if isinstance(value, torch.Tensor)),
        }


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_weights_gradients_and_states_of_a_real_run_have_the_bytes_of_the_page(
    lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the base of adapters is in float32."""
    rows = colour_rows()
    model, tokenizer = make_real("Qwen2", [f"{row.prompt} {row.response}" for row in rows])
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    write_rows("rows.jsonl", [{"prompt": row.prompt, "response": row.response} for row in rows])
    seen = []

    class Seen(Sft):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            seen.append(Counted(self))
            self.add_callback(seen[0])

    monkeypatch.setattr(sft, "Sft", Seen)
    train(sft, "rows.jsonl", model="model", output="out", steps=1, held_out=0, lora=lora)
    shape = shape_of(model.config)
    assert REAL["Qwen2"].config is Qwen2Config
    expected = adapted(shape, frozen(shape, SINGLE)) if lora else whole(shape)
    assert seen[0].bytes == expected._asdict()


def kept(shape: Shape, *, is_whole: bool, checkpointing: bool) -> int:
    """Return the bytes that PyTorch keeps of a sequence for the backward pass, without those of weights."""
    set_seed(0)
    model: Any = Qwen2ForCausalLM(config_of(shape, 4))
    if not is_whole:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model.to(torch.bfloat16), LoraConfig(r=16, target_modules="all-linear"))
        model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {size for p in model.parameters() for size in (tuple(p.shape), tuple(p.shape)[::-1])}
    storages: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_cast_weight = tensor.dim() == 2 and tuple(tensor.shape) in shapes
        if storage.data_ptr() not in weights and not is_cast_weight:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.zeros((1, TOKENS), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, use_cache=False)
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "lora"])
def test_a_layer_keeps_the_bytes_of_the_page(is_whole: bool, checkpointing: bool) -> None:
    """Two more layers; what is outside the layers is in neither difference."""
    small, large = (Shape("test", 96, 320, layers, 48, 64, is_tied=True) for layers in (1, 3))
    options = {"is_whole": is_whole, "checkpointing": checkpointing}
    measured = kept(large, **options) - kept(small, **options)
    assert measured == activations(large, 1, **options) - activations(small, 1, **options)


def test_the_page_holds_what_the_command_prints() -> None:
    page = Path(__file__).resolve().parents[2].joinpath("docs/sizes.md").read_text()
    for title, lines in tables().items():
        assert "\n".join(lines) in page, f"{title}: run python -m benchmarks.sizes"
