"""Chat templates by name, and of a file: they render what the families' own do, and are saved with the model."""

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from datagen.errors import InputError
from datagen.llm.local.chat_template import render_chat
from datagen.records.record import Messages
from datagen_train import sft
from datagen_train.data.encode import IGNORED, Encoder
from datagen_train.models.named_templates import choose_template, special_tokens, template_text
from datagen_train.models.tiny import make_tokenizer
from datagen_train.models.tokens import turn_closer
from datagen_train.options import TEMPLATES, DpoOptions, PretrainOptions, SftOptions, TrainOptions
from datagen_train.tools import check
from datagen_train.tools.evaluate import load_trained
from datagen_train.tools.options import CheckOptions
from tests.train.runs import Notes, train
from tests.train.tasks import write_rows

SHIPPED = Path(trl.__file__).parent / "chat_templates"
"""Templates of model families as the library knows them."""
TALK: Messages = [
    {"role": "user", "content": " Warm? "},
    {"role": "assistant", "content": "Yes. "},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "No."},
]
SYSTEM: Messages = [{"role": "system", "content": "Be brief."}, *TALK]
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"town": "Bonn"}}}
CALLS: Messages = [
    {"role": "user", "content": "Warm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL], "reasoning_content": "I look."},
    {"role": "tool", "content": "3 degrees", "tool_call_id": "a"},
    {"role": "tool", "content": "4 degrees", "tool_call_id": "a"},
    {"role": "assistant", "content": "No.", "reasoning_content": "3 is cold."},
    {"role": "user", "content": "Thanks."},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ROWS = [{"prompt": f"Name colour {i}.", "response": "blue"} for i in range(6)]
FAST: dict[str, Any] = {"steps": 1, "batch_size": 2, "held_out": 0}


def family_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows some special tokens, and starts every text with a start token."""
    tokenizer = make_tokenizer([str(TALK)], 384)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = None
    return tokenizer


@pytest.mark.parametrize(
    ("name", "file", "conversations"),
    [
        ("llama3", "llama3", [TALK, SYSTEM]),
        ("gemma", "gemma", [TALK]),
        ("gemma", "gemma3", [SYSTEM]),
        ("phi3", "phi3", [TALK, SYSTEM]),
        ("qwen3", "qwen3", [TALK, SYSTEM, CALLS]),
    ],
)
def test_a_template_renders_as_that_of_its_family(name: str, file: str, conversations: list[Messages]) -> None:
    tokenizer, family = family_tokenizer(*special_tokens(name)), family_tokenizer()
    choose_template(tokenizer, name)
    family.chat_template = (SHIPPED / f"{file}.jinja").read_text()
    family.bos_token = "[START]"
    for messages in conversations:
        for tools in ((), TOOLS) if name == "qwen3" else ((),):
            for ask in (True, False):
                expected = render_chat(family, messages, tools, ask=ask).replace("[START]", "")
                if name == "phi3" and not ask:
                    expected = expected.removesuffix(str(family.eos_token))
                assert render_chat(tokenizer, messages, tools, ask=ask) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_turn_is_trained_up_to_its_end_and_no_token_is_added(name: str) -> None:
    tokenizer = family_tokenizer(*special_tokens(name))
    size = len(tokenizer)
    choose_template(tokenizer, name)
    closer = turn_closer(tokenizer)
    assert closer is not None
    encoder = Encoder(tokenizer, {closer, int(str(tokenizer.eos_token_id))}, 512)
    sequences = encoder.turns(TALK, all_turns=True)
    trained = [token for sequence in sequences for token in sequence.labels if token != IGNORED]
    text = tokenizer.decode(trained)
    end = tokenizer.decode([closer])
    assert [answer.strip().removeprefix("<think>\n\n</think>\n\n") for answer in text.split(end)] == ["Yes.", "No.", ""]
    assert len(tokenizer) == size


def test_a_start_token_is_written_where_the_model_was_trained_behind_one() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = family_tokenizer("<|im_start|>", "<|im_end|>", "<s>")
    tokenizer.bos_token = "<s>"
    start = int(str(tokenizer.bos_token_id))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    choose_template(tokenizer, "chatml")
    assert render_chat(tokenizer, TALK).startswith("<s><|im_start|>user")


def test_missing_special_tokens_are_one_line_with_what_fits() -> None:
    tokenizer = family_tokenizer()
    with pytest.raises(InputError) as raised:
        choose_template(tokenizer, "llama3")
    assert str(raised.value) == (
        "--template llama3: the model's vocabulary lacks <|start_header_id|>, <|end_header_id|>, <|eot_id|>; "
        "those that fit it: plain, chatml, mistral, qwen3, vicuna"
    )
    assert tokenizer.chat_template is None


def test_the_template_is_saved_and_read_by_the_tools(fresh: Path) -> None:
    write_rows("rows.jsonl", ROWS)
    for name, options in (("full", {}), ("lora", {"lora": True})):
        notes = Notes()
        train(sft, "rows.jsonl", model=str(fresh), template="vicuna", output=name, notes=notes, **FAST, **options)
        assert "chat template: vicuna, saved with the model" in notes.messages
        saved = AutoTokenizer.from_pretrained(name)
        assert render_chat(saved, TALK[:1], ask=True) == "USER:  Warm?  ASSISTANT:"
        assert load_trained(name, "float32").tokenizer.chat_template == template_text("vicuna")
    config = json.loads(Path("full/run/config.json").read_text())
    assert config["template"].startswith("vicuna ")


def test_check_shows_the_template(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows("rows.jsonl", ROWS)
    result = check.run("rows.jsonl", CheckOptions(model=str(fresh), template="vicuna", rows=1))
    assert "chat template: vicuna, saved with the model" in result["notes"]
    assert "USER" in capsys.readouterr().err.replace("|", "")


def test_an_edited_file_is_another_run(fresh: Path) -> None:
    write_rows("rows.jsonl", ROWS)
    file = Path("mine.jinja")
    common = {**FAST, "model": str(fresh), "template": str(file), "output": "out"}
    file.write_text("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}")
    notes = Notes()
    train(sft, "rows.jsonl", notes=notes, **common)
    assert "chat template: that of mine.jinja" in notes.messages
    assert any("no token of the vocabulary" in text and "<|user|>, <|assistant|>" in text for text in notes.messages)
    assert Path("out/chat_template.jinja").read_text() == file.read_text()
    file.write_text(file.read_text() + " ")
    with pytest.raises(InputError, match="holds another run"):
        train(sft, "rows.jsonl", **common)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}", "the chat template of the model refuses"),
        ("hello", "leaves out what the user or the assistant says"),
        (None, "mine.jinja: no such file"),
    ],
)
def test_a_file_that_is_no_template_is_one_line(text: str | None, message: str, fresh: Path) -> None:
    write_rows("rows.jsonl", ROWS)
    if text is not None:
        Path("mine.jinja").write_text(text)
    with pytest.raises(InputError, match=message):
        train(sft, "rows.jsonl", model=str(fresh), template="mine.jinja", output="out", **FAST)


def test_mistakes_are_found_before_anything_is_loaded() -> None:
    with pytest.raises(InputError, match=r"--template chatlm: expected one of .* Did you mean chatml\?"):
        SftOptions().check(TrainOptions(template="chatlm"))
    with pytest.raises(InputError, match="--template: documents are no conversations"):
        PretrainOptions().check(TrainOptions(template="chatml"))
    DpoOptions().check(TrainOptions(template="chatml", model="policy"))
