"""A chat template is a program: it says the same as in the library, reaches nothing, and cannot stop a run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from datagen.llm.local.chat_template import Renderer, TemplateHung, TemplateRefusal, render_chat
from datagen.records.record import Messages
from datagen.signals import STOP_SIGNALS
from datagen_train.models.tiny import CHAT_TEMPLATE
from datagen_train.models.tokens import PLAIN_TEMPLATE
from tests.forked import Forked

CHAT: Messages = [{"role": "user", "content": 'Say "好" \ud800 {{ x }}'}, {"role": "assistant", "content": "好\n"}]
TOOLS = "{% generation %}{{ messages | tojson }}{% endgeneration %}{{ bos_token }}{{ strftime_now('%Y') }}"
RANGE = "{% for i in range(99999) %}"
ENDLESS = {
    "loops": f"{RANGE}{RANGE}{{% endfor %}}{{% endfor %}}",
    "a recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "a power": "{{ 3 ** (3 ** 20) }}",
}
LARGE = {
    "a product": "{{ 'x' * 10 ** 10 }}",
    "a loop": f"{RANGE}{{{{ 'x' * 99999 }}}}{{% endfor %}}",
    "a format": "{{ '%09999999999d' % 1 }}",
    "a filter": "{{ 'x' | center(9999999999) }}",
}


@pytest.fixture
def tokenizer(fresh: Path) -> Any:
    return AutoTokenizer.from_pretrained(fresh)


@pytest.fixture(scope="module")
def quick() -> Iterator[Renderer]:
    """A renderer that gives a conversation half a second."""
    renderer = Renderer(0.5)
    yield renderer
    renderer.process.close()


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, CHAT_TEMPLATE, TOOLS])
@pytest.mark.parametrize("ask", [False, True])
def test_the_text_is_the_one_of_the_library(template: str, ask: bool, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=ask)
    assert render_chat(tokenizer, CHAT, ask=ask) == expected


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_ended(template: str, tokenizer: Any, quick: Renderer) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateHung, match=r"did not end within 0.5 s"):
        quick.render(tokenizer, CHAT)
    tokenizer.chat_template = PLAIN_TEMPLATE
    assert "好" in quick.render(tokenizer, CHAT)  # the next one is rendered by a new process


@pytest.mark.parametrize("template", LARGE.values(), ids=LARGE)
def test_a_template_does_not_fill_the_memory(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefusal, match=r"it needs too much memory|a text of .* characters"):
        render_chat(tokenizer, CHAT)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
        "{% include 'x' %}",
    ],
)
def test_a_template_reaches_nothing(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefusal):
        render_chat(tokenizer, CHAT)
    assert not Path("ran").exists()


def test_the_words_of_a_refusal_are_short(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system role, ' * 999) }}"
    with pytest.raises(TemplateRefusal, match=r"^the chat template of the model refuses .*: no sys") as raised:
        render_chat(tokenizer, CHAT)
    assert len(str(raised.value)) < 400


def test_a_signal_to_all_processes_does_not_end_the_renderer(tokenizer: Any, quick: Renderer) -> None:
    tokenizer.chat_template = PLAIN_TEMPLATE
    before = quick.render(tokenizer, CHAT)
    assert quick.process._process
    for number in STOP_SIGNALS:
        quick.process._process.send_signal(number)
    assert quick.render(tokenizer, CHAT) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["respond rows.jsonl --model hf:foreign", "train sft rows.jsonl --model foreign"])
def test_an_endless_template_ends_a_command_with_one_line(command: str, fresh: Path) -> None:
    shutil.copytree(fresh, "foreign")
    Path("foreign/chat_template.jinja").write_text(ENDLESS["loops"])
    Path("rows.jsonl").write_text(json.dumps({"prompt": "What colour is the sky?", "response": "blue"}) + "\n")
    run = Forked(command)
    _, stderr = run.communicate(timeout=300)
    assert run.returncode == 1
    assert "error: the chat template of the model did not end within 10 s" in stderr
    assert "Traceback" not in stderr
