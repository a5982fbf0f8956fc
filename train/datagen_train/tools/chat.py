"""`datagen train chat`: talk to a trained model in a terminal, or send it one prompt from a script.

The text of a model may hold control characters, which a terminal would act on: they are printed as escapes. Notes go to
standard error, so that standard output holds the answers alone.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from datagen.commands.terminal import printable
from datagen.engine.options import option
from datagen.errors import InputError
from datagen.llm.local.generation import Generated, context_length, generate
from datagen.records.record import Messages
from datagen_train.data.encode import Encoder
from datagen_train.models.load import Loaded
from datagen_train.models.tokens import turn_end_ids
from datagen_train.tools.evaluate import load_trained

HELP = "/reset forgets the conversation, /quit ends it."


@dataclass(frozen=True)
class Options:
    """Options of `datagen train chat`."""

    prompt: str | None = option(None, "Send this prompt, print the answer and exit.", short="-p", panel="Chat")
    system: str | None = option(None, "System message of every conversation.", panel="Chat")
    temperature: float = option(0.7, "Sampling temperature; 0 is greedy decoding.", least=0, panel="Sampling")
    top_p: float = option(1.0, "Nucleus sampling (top-p).", least=0, most=1, panel="Sampling")
    max_tokens: int = option(512, "Maximum length of an answer in tokens.", least=1, panel="Sampling")
    seed: int | None = option(None, "Random seed of sampling. [random]", panel="Sampling")
    dtype: str = option("auto", "Data type of the weights: auto, float32 or bfloat16.", panel="Model")


class Chat:
    """One conversation with a model."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
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
        (answer,) = generate(
            self._loaded.model,
            self._loaded.tokenizer,
            [self._encoder.prompt(messages)],
            max_tokens=self._options.max_tokens,
            temperature=self._options.temperature,
            top_p=self._options.top_p,
            seeds=[self._random.getrandbits(64)],
        )
        return answer


def run(model: str, options: Options) -> int:
    """Talk until the person leaves; return the exit code."""
    chat = Chat(load_trained(model, options.dtype), options)
    if options.prompt is not None:
        answer = chat.ask(options.prompt)
        if not answer.ids:
            raise InputError("the prompt fills the whole context of the model")
        print_answer(answer)
        return 0
    note(f"Talking to {printable(model)}. {HELP}")
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
            yield input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return


def print_answer(answer: Generated) -> None:
    if not answer.ids:
        note("The conversation fills the whole context: /reset begins a new one.")
        return
    print(printable(answer.text), flush=True)
    if answer.finish_reason == "length":
        note("(cut: raise --max-tokens)")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
