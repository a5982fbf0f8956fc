"""What a model's chat template makes of a conversation: what the model is asked, and what it has to generate then.

A template is a program of the model's author, and each has its own rules. It may open the thinking in the prompt, leave
thinking out of earlier turns, read a call's arguments as text or as a mapping, refuse a role, or know no tools. They
are found out by rendering, never by the model's name.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import product
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from datagen.llm.local.chat_template import TemplateRefusal, render_chat
from datagen.records.record import Message, Messages, Row
from datagen_train.errors import UnusableRow

THOUGHT, THOUGHT_END = "<think>\n{}", "\n</think>\n\n"
"""How reasoning stands before an answer where the template does not read `reasoning_content`: the marks that most
thinking models share."""
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates read a message's reasoning."""
OPENING = re.compile(r"(?P<open><think>\s*)?(?P<closed></think>\s*)?\Z")
"""The end of a prompt in which the template begins the thinking, or also ends it: then thinking is off."""
HANDED = ("role", "content", "name", "tool_call_id")
PROBE_CALL = {"id": "probe0001", "type": "function", "function": {"name": "convert", "arguments": {"unit": "mile"}}}
SECOND_CALL = {"id": "probe0002", "type": "function", "function": {"name": "convert", "arguments": {"unit": "furlong"}}}
PROBE_TOOL: Row = {
    "type": "function",
    "function": {
        "name": "convert",
        "description": "Convert a length.",
        "parameters": {"type": "object", "properties": {"unit": {"type": "string", "description": "The unit."}}},
    },
}
PROBE_TEXT = "PROBE"
OPEN_CONVERSATION = "{% set conversation %}"
"""The text of the template follows: what it renders becomes the value."""
CHANGED = "the chat template renders a prompt otherwise once it is answered"


class Exchange(NamedTuple):
    """A prompt, and the text that the model has to generate after it, the end token included."""

    prompt: str
    answer: str
    has_reasoning: bool
    """Is the message's reasoning part of the answer?"""


class CallForm(NamedTuple):
    """How a template wants a message that calls tools."""

    as_text: bool
    """The arguments are a JSON text, not a mapping."""
    blank: str | None
    """The content where there is none."""


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._leaves_out = cache(self._find_left_out)

    def prompt(self, messages: Messages, tools: Sequence[Row] = ()) -> str:
        """Return what the model is asked: the conversation, and the beginning of the assistant's turn.

        Raises:
            UnusableRow: The template refuses the conversation, has no tools, or leaves a message out.
        """
        if tools and not self.has_tools:
            raise UnusableRow("the chat template has no tools")
        self._refuse_calls(messages)
        for role in sorted({"assistant", *(message["role"] for message in messages)}):
            if self._leaves_out(role):
                raise UnusableRow(f"the chat template leaves out messages of the role {role}")
        return self._render(messages, tools, ask=True)

    def exchange(self, messages: Messages, tools: Sequence[Row] = ()) -> Exchange:
        """Split a conversation that ends in an assistant's turn.

        Raises:
            UnusableRow: As in `prompt`; or the answer is not found behind the prompt.
        """
        *before, message = messages
        self._refuse_calls([message])
        prompt = self.prompt(before, tools)
        opening = OPENING.search(prompt)
        assert opening
        reasoning = "" if opening["closed"] else message.get("reasoning_content") or ""

        # 1. Render the answered conversation, and find the answer in it: behind the prompt, with or without its marks.
        plain = answered = self._render([*before, message | {"reasoning_content": ""}], tools)
        if reasoning:
            answered = self._render(messages, tools)
        start = next((text for text in (prompt, prompt[: opening.start()]) if answered.startswith(text)), None)
        if start is not None:
            answer = answered[len(start) :]
        else:
            start, answer = self._find_answer(prompt, opening.start(), before, tools, answered)

        # 2. A prompt that opens the thinking is followed by the reasoning and the closing mark.
        is_open = bool(opening["open"]) and not opening["closed"]
        if is_open and start != prompt:
            has_mark = answer.startswith("<think>")
            answer = answer.removeprefix("<think>").lstrip() if has_mark else THOUGHT_END + answer
        if reasoning and answered == plain:  # the template does not read it
            answer = reasoning + answer if is_open else THOUGHT.format(reasoning) + THOUGHT_END + answer

        if not answer:
            raise UnusableRow(CHANGED)
        return Exchange(prompt, answer, bool(reasoning))

    def conversation(self, messages: Messages, tools: Sequence[Row] = ()) -> str:
        """Return the text of a whole conversation, as `apply_chat_template` gives it.

        Raises:
            UnusableRow: As in `prompt`.
        """
        self.prompt(messages[:-1], tools)
        return self._render(messages, tools)

    @cached_property
    def call_form(self) -> CallForm | None:
        """How the template wants a message that calls tools; None if it shows no calls."""
        for form in (CallForm(*values) for values in product((False, True), ("", None))):
            try:
                text = self._render(probe("tool"), form=form)
            except UnusableRow:
                continue
            is_escaped = '\\"' in text  # a JSON text, written as a JSON value once more
            if not is_escaped and all(word in text for word in ("convert", "unit", "mile")):
                return form
        return None

    @cached_property
    def has_parallel_calls(self) -> bool:
        """Does the template show more than the first call of a turn, or refuse it in words of its own?"""
        question, turn, *_ = probe("tool")
        try:
            text = self._render([question, turn | {"tool_calls": [PROBE_CALL, SECOND_CALL]}])
        except UnusableRow:
            return True
        return "furlong" in text

    @cached_property
    def after_call(self) -> str:
        """What the template writes behind the arguments of a call that ends a conversation; "" without calls."""
        if self.call_form is None:
            return ""
        try:
            return self._render(probe("tool")[:2]).rpartition("mile")[2]
        except UnusableRow:
            return ""

    @cached_property
    def has_tools(self) -> bool:
        """Does the template tell the model about its tools?"""
        try:
            return "convert" in self._render(probe("user"), [PROBE_TOOL], ask=True)
        except UnusableRow:
            return False

    def _refuse_calls(self, messages: Messages) -> None:
        """Raise UnusableRow if the template leaves out a call of a tool."""
        most = max((len(message.get("tool_calls") or []) for message in messages), default=0)
        if most and self.call_form is None:
            raise UnusableRow("the chat template has no tool calls")
        if most > 1 and not self.has_parallel_calls:
            raise UnusableRow("the chat template shows only the first of several tool calls in a turn")

    def _find_left_out(self, role: str) -> bool:
        """Does the template leave out the text of a role's messages in silence?"""
        if role == "tool" and self.call_form is None:
            return True
        try:
            return PROBE_TEXT not in self._render(probe(role))
        except UnusableRow:
            return False  # the template says so itself

    def _find_answer(
        self, prompt: str, opening: int, before: Messages, tools: Sequence[Row], answered: str
    ) -> tuple[str, str]:
        """Find the answer where the template also changes what was said before; return (prompt's text, answer).

        The longest end of the prompt that is in the answered conversation must hold more than the generation prompt.
        """
        unasked = self._render(before, tools)
        for start in (prompt, prompt[:opening]):
            length = bisect_left(range(1, len(start)), True, key=lambda n: start[-n:] not in answered)
            if length > len(start.removeprefix(unasked)):
                return start, answered.rpartition(start[-length:])[2]
        raise UnusableRow(CHANGED)

    def _render(
        self, messages: Messages, tools: Sequence[Row] = (), *, ask: bool = False, form: CallForm | None = None
    ) -> str:
        if form is None and any(message.get("tool_calls") for message in messages):
            form = self.call_form
        handed = [hand(message, form or CallForm(False, "")) for message in messages]
        try:
            return render_chat(self._tokenizer, handed, tools, ask=ask)
        except TemplateRefusal as refusal:
            raise UnusableRow(str(refusal)) from refusal


def set_defaults(tokenizer: PreTrainedTokenizerBase, values: dict[str, Any]) -> None:
    """Write values into the chat template, as defaults: whoever renders it later need not know them."""
    defaults = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {'none' if value is None else json.dumps(value)} %}}"
        "{% endif %}"
        for name, value in values.items()
    )
    change_template(tokenizer, lambda text: text if text.startswith(defaults) else defaults + text)


def end_answers(tokenizer: PreTrainedTokenizerBase, end: str, *, is_closed: bool) -> None:
    """Make a conversation that ends in an answer end with the answer's end token, for whoever renders it later.

    Args:
        tokenizer: Its chat template is changed.
        end: The end token.
        is_closed: The template writes it, and may write more behind it.
    """
    answered = f"conversation[: conversation.rfind({json.dumps(end)})]" if is_closed else "conversation"
    ending = (
        "{% endset %}{{ conversation if add_generation_prompt or messages[-1]['role'] != 'assistant' "
        f"else {answered} + {json.dumps(end)} }}}}"
    )
    change_template(
        tokenizer, lambda text: text if text.endswith(ending) else OPEN_CONVERSATION + text.removesuffix("\n") + ending
    )


def change_template(tokenizer: PreTrainedTokenizerBase, change: Callable[[str], str]) -> None:
    """Change the chat template of a tokenizer, or each of several."""
    template: Any = tokenizer.chat_template
    is_named = isinstance(template, dict)
    tokenizer.chat_template = (
        {name: change(text) for name, text in template.items()} if is_named else change(template or "")
    )


def hand(message: Message, form: CallForm) -> Message:
    """Return a message as a template reads it: no marks of ours, reasoning under every name, calls in its form."""
    handed = {name: message[name] for name in HANDED if message.get(name) is not None}
    handed.setdefault("content", "")
    if message.get("reasoning_content"):
        handed |= dict.fromkeys(REASONING_FIELDS, message["reasoning_content"])
    if calls := message.get("tool_calls"):
        handed["content"] = handed["content"] or form.blank
        handed["tool_calls"] = [hand_call(call, form.as_text) for call in calls]
    return handed


def hand_call(call: Row, as_text: bool) -> Row:
    """Return a tool call with its arguments as a JSON text, or as a mapping if they are one."""
    function = call.get("function") or {}
    arguments: Any = function.get("arguments")
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except ValueError:
            value = None
        arguments = value if isinstance(value, dict) else arguments
    return call | {"function": function | {"arguments": arguments}}


def probe(role: str) -> Messages:
    """Return a short conversation with a message of a role."""
    question, answer = {"role": "user", "content": PROBE_TEXT}, {"role": "assistant", "content": "A"}
    if role == "user":
        return [question]
    if role == "assistant":
        return [question | {"content": "Q"}, answer | {"content": PROBE_TEXT}]
    question["content"] = "Q"
    if role != "tool":
        return [{"role": role, "content": PROBE_TEXT}, question]
    call = {"role": "assistant", "content": "", "tool_calls": [PROBE_CALL]}
    result = {"role": "tool", "content": PROBE_TEXT, "tool_call_id": PROBE_CALL["id"], "name": "convert"}
    return [question, call, result, answer]
