"""`datagen train chat`: talk to a trained model in a terminal, or ask it once in a pipe.

What a model says may hold control characters, which a terminal would obey: they are shown as escapes. Notes go to
standard error, so that standard output holds the model's words alone.
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
    """What `datagen train chat` can be told."""

    prompt: str | None = option(None, "Ask this once, print the answer and end.", short="-p", panel="Chat")
    system: str | None = option(None, "The system message that every conversation begins with.", panel="Chat")
    temperature: float = option(0.7, "Sampling temperature; 0 takes the likeliest token.", least=0, panel="Sampling")
    top_p: float = option(1.0, "Nucleus sampling.", least=0, most=1, panel="Sampling")
    max_tokens: int = option(512, "The longest answer in tokens.", least=1, panel="Sampling")
    seed: int | None = option(None, "Draws what is sampled. [another each time]", panel="Sampling")
    dtype: str = option("auto", "Type of the weights: auto, float32 or bfloat16.", panel="Model")


class Chat:
    """One conversation with a model."""

    def __init__(self, loaded: Loaded, options: Options) -> None:
        self._loaded, self._options = loaded, options
        ends = turn_end_ids(loaded.model, loaded.tokenizer)
        self._encoder = Encoder(loaded.tokenizer, ends, context_length(loaded.model))
        self._chance = Random(options.seed)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        system = self._options.system
        self.messages: Messages = [{"role": "system", "content": system}] if system else []

    def ask(self, text: str) -> Generated:
        """Say something, and return the answer; both are remembered, unless it did not fit."""
        asked = [*self.messages, {"role": "user", "content": text}]
        answer = self._generate(asked)
        if answer.ids:
            self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer

    def _generate(self, messages: Messages) -> Generated:
        told, (model, tokenizer) = self._options, (self._loaded.model, self._loaded.tokenizer)
        prompts, seeds = [self._encoder.prompt(messages)], [self._chance.getrandbits(64)]
        (answer,) = generate(
            model,
            tokenizer,
            prompts,
            max_tokens=told.max_tokens,
            temperature=told.temperature,
            top_p=told.top_p,
            seeds=seeds,
        )
        return answer


def run(model: str, options: Options) -> int:
    """Talk until the person leaves; return the exit code."""
    chat = Chat(load_trained(model, options.dtype), options)
    if options.prompt is not None:
        answer = chat.ask(options.prompt)
        if not answer.ids:
            raise InputError("the prompt fills the whole context of the model")
        tell(answer)
        return 0
    note(f"Talking to {printable(model)}. {HELP}")
    for line in lines():
        if line == "/quit":
            break
        obey(chat, line)
    return 0


def obey(chat: Chat, line: str) -> None:
    """Do what one line asks for."""
    if line == "/reset":
        chat.reset()
        note("A new conversation.")
    elif line.startswith("/"):
        note(f"No such command. {HELP}")
    elif line:
        tell(chat.ask(line))


def lines() -> Iterator[str]:
    """Yield what the person types, until the end of the input or Ctrl-C."""
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    while True:
        try:
            yield input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return


def tell(answer: Generated) -> None:
    """Print an answer, and what there is to know about it."""
    if not answer.ids:
        note("The conversation fills the whole context: /reset begins a new one.")
        return
    print(printable(answer.text), flush=True)
    if answer.finish_reason == "length":
        note("(cut: raise --max-tokens)")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
