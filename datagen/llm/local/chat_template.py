"""The chat template of a model, rendered in a process of its own.

A template is a program of the model's author. The library runs it in a sandbox, which stops it from reaching anything,
but not from running for ever or filling the memory; the process is for that (subprocesses.py).
"""

import sys
from collections.abc import Sequence
from typing import Any

from datagen.errors import DatagenError
from datagen.records.record import Messages, Row
from datagen.subprocesses import LineProcess, ProcessEnded, serve

CPU_SECONDS = 10.0
"""For one conversation; a usual one takes a tenth of a millisecond."""
MAX_TEXT = 64 << 20
"""Characters of a rendered conversation."""


class TemplateRefusal(DatagenError):
    """A template fails, or refuses the conversation."""


class TemplateHung(DatagenError):
    """A template does not end. No other conversation is worth a try."""


class Renderer:
    """The process, started by the first conversation and again after its end; it ends with this one.

    Args:
        cpu_seconds: For one conversation.
    """

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        self.process = LineProcess("datagen.llm.local.chat_template", cpu_seconds)

    def render(
        self,
        tokenizer: Any,
        messages: Messages,
        tools: Sequence[Row] = (),
        values: Row | None = None,
        *,
        ask: bool = False,
    ) -> str:
        """Return the text of a conversation, as `render_chat` does."""
        functions = list(tools) or None
        request = {
            **(values or {}),
            "conversations": [messages],
            "tools": functions,
            "chat_template": tokenizer.get_chat_template(tools=functions),
            "add_generation_prompt": ask,
            **tokenizer.special_tokens_map,
        }
        try:
            reply = self.process.request(request)
        except ProcessEnded as end:
            raise self._death(end) from None
        if "error" in reply:
            raise TemplateRefusal(f"the chat template of the model refuses the messages: {reply['error']}")
        return str(reply["text"])

    def _death(self, end: ProcessEnded) -> TemplateHung:
        """Return the error that says why the process has ended."""
        if end.is_slow:
            return TemplateHung(
                f"the chat template of the model did not end within {self.process.cpu_seconds:g} s. It is a program of "
                "the model's author: mend chat_template.jinja in the model's folder, or use another model"
            )
        return TemplateHung(f"the process that renders the chat template of the model has ended ({end})")


RENDERER = Renderer()


def render_chat(
    tokenizer: Any, messages: Messages, tools: Sequence[Row] = (), values: Row | None = None, *, ask: bool = False
) -> str:
    """Return the text of a conversation, as the tokenizer's `apply_chat_template` does.

    Args:
        tokenizer: Of the library, with a chat template.
        messages: The turns.
        tools: The functions that the assistant may call, in the form of the OpenAI API.
        values: More values of the template, such as `enable_thinking`.
        ask: End with the beginning of the assistant's turn.

    Raises:
        TemplateRefusal: The template fails, or refuses the conversation.
        TemplateHung: It does not end.
    """
    return RENDERER.render(tokenizer, messages, tools, values, ask=ask)


def render(request: Row) -> Row:
    """Return the reply to a request of `Renderer`, in the process."""
    from transformers.utils.chat_template_utils import render_jinja_template

    text = render_jinja_template(**request)[0][0]
    return {"text": text} if len(text) <= MAX_TEXT else {"error": f"a text of {len(text):,} characters"}


if __name__ == "__main__":
    import transformers.utils.chat_template_utils  # noqa: F401  the limit is for the conversation, not for the import

    serve(render, float(sys.argv[1]))
