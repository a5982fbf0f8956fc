"""`datagen train chat`: talk to a trained model in a terminal, or send it one prompt from a script.

The text of a model may hold control characters, which a terminal would act on: they are printed as escapes. Notes go to
standard error, so that standard output holds the answers alone.
"""

import sys
from collections.abc import Iterator
from random import Random

from datagen.errors import InputError
from datagen.llm.local.generation import Generated, context_length, generate
from datagen.printing import printable
from datagen.records.record import Messages
from datagen.signals import interrupt, on_stop
from datagen_train.data.encode import Encoder
from datagen_train.errors import UnusableRow
from datagen_train.models.load import Loaded
from datagen_train.models.tokens import turn_end_ids
from datagen_train.tools.evaluate import load_trained
from datagen_train.tools.options import ChatOptions

HELP = "/reset forgets the conversation, /quit ends it."


class Chat:
    """One conversation with a model."""

    def __init__(self, loaded: Loaded, options: ChatOptions) -> None:
        self._loaded, self._options = loaded, options
        ends = turn_end_ids(loaded.model, loaded.tokenizer)
        self._encoder = Encoder(loaded.tokenizer, ends, context_length(loaded.model))
        self._random = Random(options.seed)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        system = self._options.system
        self.messages: Messages = [{"role": "system", "content": system}] if system else []

    def ask(self, text: str) -> Generated:
        """Send a message and return the answer; both are remembered, unless the context was full (no ids)."""
        messages = [*self.messages, {"role": "user", "content": text}]
        answer = self._generate(messages)
        if answer.ids:
            self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        return answer

    def _generate(self, messages: Messages) -> Generated:
        try:
            prompt = self._encoder.prompt(messages)
        except UnusableRow as reason:
            raise InputError(str(reason)) from reason
        (answer,) = generate(
            self._loaded.model,
            self._loaded.tokenizer,
            [prompt],
            max_tokens=self._options.max_tokens,
            temperature=self._options.temperature,
            top_p=self._options.top_p,
            seeds=[self._random.getrandbits(64)],
        )
        return answer


def run(model: str, options: ChatOptions) -> int:
    """Talk until the person leaves; return the exit code."""
    chat = Chat(load_trained(model, options.dtype, options.chat_template_kwargs), options)
    if options.prompt is not None:
        answer = chat.ask(options.prompt)
        if not answer.ids:
            raise InputError("the prompt fills the whole context of the model")
        print_answer(answer)
        return 0
    note(f"Talking to {model}. {HELP}")
    for line in input_lines():
        if line == "/quit":
            break
        handle_line(chat, line)
    return 0


def handle_line(chat: Chat, line: str) -> None:
    """Run a command or send a message."""
    if line == "/reset":
        chat.reset()
        note("A new conversation.")
    elif line.startswith("/"):
        note(f"No such command. {HELP}")
    elif line:
        print_answer(chat.ask(line))


def input_lines() -> Iterator[str]:
    """Yield the lines that a person types, until the end of the input or Ctrl-C."""
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    while True:
        try:
            with on_stop(interrupt):  # the process must not end while a library holds the terminal
                line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return
        yield line


def print_answer(answer: Generated) -> None:
    if not answer.ids:
        note("The conversation fills the whole context: /reset begins a new one.")
        return
    if answer.reasoning:
        note(f"(thinking: {answer.reasoning})")
    print(printable(answer.text), flush=True)
    if answer.finish_reason == "length":
        note("(cut: raise --max-tokens)")


def note(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
